# The pipeline with all that it needs; for a GPU give the index that has PyTorch for your CUDA:
#
#     docker build -t unet [--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130] .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" --entrypoint unet unet run my.yaml
#
# Without --entrypoint, the words go to Snakemake: ... unet --cores all --configfile my.yaml
# For Apptainer see docs/cluster.md.
FROM python:3.11.13-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/unet
COPY requirements.lock pyproject.toml setup.py README.md LICENSE ./
COPY unet unet
COPY scripts scripts
COPY workflow workflow
COPY config config
# The wheel, as users install it; the folder is left empty.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/wheel . \
    && pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint requirements.lock \
    "$(ls /tmp/wheel/*.whl)[cluster,engines,keras,slurm]" \
    && rm -rf /tmp/wheel /opt/unet/*

# Whoever runs it: caches go where anybody may write.
ENV HOME=/tmp
USER 1000
WORKDIR /data
ENTRYPOINT ["snakemake", "--snakefile", \
    "/usr/local/lib/python3.11/site-packages/unet/_pipeline/workflow/Snakefile"]
CMD ["--help"]
