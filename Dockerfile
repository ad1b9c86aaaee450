# The pipeline with all that it needs; for a GPU give the index that has PyTorch for your CUDA:
#
#     docker build -t unet [--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130] .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" unet --cores all --configfile my.yaml
#
# For Apptainer see docs/cluster.md.
FROM python:3.11.13-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/unet
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY unet unet
COPY scripts scripts
COPY workflow workflow
COPY config config
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
    --constraint requirements.lock --editable ".[cluster,engines,keras,slurm]"

# Whoever runs it: caches go where anybody may write.
ENV HOME=/tmp
USER 1000
WORKDIR /data
ENTRYPOINT ["snakemake", "--snakefile", "/opt/unet/workflow/Snakefile"]
CMD ["--help"]
