"""`make docs`: the documents of this repository as a site in build/docs, which needs no network.

``pages`` says which page is made of which file, ``staging`` writes them to build/site with links that lead from page to
page, Zensical renders these, and mkdocstrings adds the docstrings to the pages of ``reference``, as ``docstrings``
prepares them.
"""
