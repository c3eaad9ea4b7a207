"""Architecture search: the paper's spaces, controllers for them, and a hash of networks.

A space turns a network into a row of decisions and back; a controller proposes rows and learns from
their rewards. Neither knows how a network is judged.
"""
