"""Contract suites, fault wrappers and a clock for those who implement a seam."""
