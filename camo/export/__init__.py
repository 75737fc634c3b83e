"""The filter or a quality model as files that run without this package."""
