"""The paper's tables and figures as studies: one YAML file each. `experiments.study` reads them."""
