"""Start Dask workers as SLURM jobs and print the address of their scheduler.

Run it where jobs may be submitted, and leave it running: its end (Ctrl-C) ends the jobs. It needs
``pip install dask-jobqueue`` beside exitwave. Then, in another shell on the same machine:

    exitwave sweep zhou2020 comparison -p noise=0,0.1,0.2 -p images=2,4 --scheduler ADDRESS
"""

import argparse
import signal
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster

# Workers have one thread each, and keep the memory that they free: see exitwave.chapters.points.
PROLOGUE = [
    "export OMP_NUM_THREADS=1",
    "export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824",
]


def parsed(arguments):
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="SLURM jobs to start")
    parser.add_argument("--cores", type=int, default=16, help="workers of each job, one thread each")
    parser.add_argument("--memory", default="64GB", help="memory of each job")
    parser.add_argument("--walltime", default="01:00:00")
    parser.add_argument("--queue", help="partition (sbatch -p)")
    parser.add_argument("--account", help="who pays (sbatch -A)")
    parser.add_argument("--interface", help="network that the nodes see, such as ib0")
    parser.add_argument(
        "--directive", action="append", default=[], help="another #SBATCH line; may be repeated"
    )
    parser.add_argument("--address-file", type=Path, help="also write the address there")
    parser.add_argument("--print-job", action="store_true", help="show the job script and submit nothing")
    return parser.parse_args(arguments)


def cluster_of(given):
    """Return a cluster without jobs; its scheduler runs in this process."""
    return SLURMCluster(
        cores=given.cores,
        processes=given.cores,
        memory=given.memory,
        walltime=given.walltime,
        queue=given.queue,
        account=given.account,
        interface=given.interface,
        job_name="exitwave",
        job_script_prologue=PROLOGUE,
        job_extra_directives=given.directive,
        # A worker whose scheduler is gone ends, and its job with it.
        death_timeout=60,
        local_directory="/tmp",
    )


def main(arguments=None):
    """Start jobs and wait for Ctrl-C."""
    given = parsed(arguments)
    with cluster_of(given) as cluster:
        if given.print_job:
            print(cluster.job_script())
            return
        cluster.scale(jobs=given.jobs)
        print(cluster.scheduler_address, flush=True)
        if given.address_file:
            given.address_file.write_text(cluster.scheduler_address)
        print(f"{given.jobs} jobs asked for; Ctrl-C ends them", file=sys.stderr)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
