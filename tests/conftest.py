"""For all tests: hypothesis draws the same examples every time, and never watches the clock of a busy machine."""

from hypothesis import settings

settings.register_profile("trimode", deadline=None, derandomize=True)
settings.load_profile("trimode")
