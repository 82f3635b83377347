"""The conformance report: sections, each made by a function, rendered as text and as HTML.

A section is added by writing a function ``(Options) -> Iterator[Row]`` whose docstring says what is compared,
and listing it in `__main__.SECTIONS`.
"""
