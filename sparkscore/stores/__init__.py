"""Where records and files are kept: `base` names the seams, each other module is one way."""
