"""Reports what is in prepared data: one HTML page, and the overlap with the molecules of a file."""

SAMPLE = 10_000  # default number of molecules whose weight and logP are computed; here so that the command line loads no NumPy
