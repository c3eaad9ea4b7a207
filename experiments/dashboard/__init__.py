"""The dashboard: pages made from the store, served while runs go on or written as files.

There is one implementation. `site.Site` answers a path with a page; `server` asks it on request and
tells open pages what changed, `export` asks it for every path once.
"""
