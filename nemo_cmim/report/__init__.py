"""What is in prepared data: a report on one page, and the overlap with other molecules."""
