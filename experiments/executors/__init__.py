"""Where cells run. Each executor takes cells and reports events; `local` uses this machine's
processes.
"""
