"""A report as a page: tables, plots, and a second opinion by independent meters."""
