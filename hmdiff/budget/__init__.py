"""What a preset would cost on so many GPUs: disk, hours and money from measured unit costs.

Two schedules: as the code is, where a job has one GPU and jobs that do not wait for each other run
side by side; and the bound that splitting every GPU job over all of them could reach. Downloads,
preparation and scoring are on CPUs and get no faster with GPUs.
"""
