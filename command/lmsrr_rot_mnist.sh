#!/usr/bin/env bash
# LMSRR and rivals on the same networks on rotated MNIST: 20 rotations, one pass, 500 images in memory (BUFFER=200 and
# 1000 are published, too). Published average of LMSRR: 94.20 +- 1.24 with 200 images, 96.97 +- 1.58 with 500, 97.05 +-
# 0.04 with 1000; three runs. lwf and icarl need tasks with classes of their own and are no rows.
#
#   bash command/lmsrr_rot_mnist.sh [options of main.py]
#
# Needs MNIST (--download fetches its 12 MB) and a GPU. Cost: 1.4 hours a run on an H100, 33 for all 24, an estimate as
# in run_lmsrr.sh, which has further settings.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_lmsrr.sh" \
    rot-mnist 20 --n_epochs 1 --inputs plain "$@"
