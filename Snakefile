# The rules are made from dvc.yaml, which alone says what a stage is: see workflow/rules/dvc.smk.
include: "workflow/rules/dvc.smk"


rule all:
    default_target: True
    input:
        outputs_of(*stages),
