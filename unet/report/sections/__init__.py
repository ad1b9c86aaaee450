"""The sections of a dataset's page, one file each.

In: :class:`unet.report.dataset_results.DatasetResults`, what the stages wrote.
Out: a :class:`unet.report.dataset_results.PageSection` with its HTML, or None if there is nothing
to say.

Start with `scores_section.py`.

To add a section, write a module here with a function ``section``, its template in
``templates/sections/``, and a line in `unet.report.dataset_page.SECTIONS`. A section imports no
other section.
"""
