"""Writers of the formats that people open: OME-Zarr and TIFF."""
