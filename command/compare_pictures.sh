#!/usr/bin/env bash
# The comparison on a dataset of real pictures, with the network that was trained on `icons`: every method, and MePo on
# each of its hosts, Si-Blurry with n = 50, m = 10 and 5 tasks, 10 seeds, in bf16. compare_emoji.sh and compare_icons.sh
# call it.
#
#   bash command/compare_pictures.sh CALLER DATASET OUT [WORDS]
#
# First each row with the settings that were chosen for it on another stream (command/choose_icons.sh). Then every host
# with and without MePo at the published rate, 0.005, where that is not the chosen one. Then what each half of MePo does
# alone, the meta stage at the rate of the host, the alignment at that of MePo. JOBS, ARGS, WORDS, and what happens when it is called again: see compare.sh.
set -euo pipefail

# The first two rows make the stages that later rows read.
export ARGS="${ARGS:---seeds 1 2 3 4 5 6 7 8 9 10}"
sed 's/$/ --precision bf16/' <<'ROWS' | bash "$(dirname "${BASH_SOURCE[0]}")/compare.sh" "$@"
--model misa
--model mepo --host dualprompt
--model joint --host singleprompt
--model finetune
--model er
--model ncm
--model ranpac
--model slca
--model l2p
--model dualprompt
--model coda
--model mvp
--model flyprompt
--model singleprompt
--model mepo --host misa
--model mepo --host l2p
--model mepo --host coda
--model mepo --host mvp
--model mepo --host flyprompt
--model mepo --host singleprompt
--model mepo --host dualprompt --lr 0.005
--model mepo --host misa --lr 0.005
--model mepo --host l2p --lr 0.005
--model mepo --host flyprompt --lr 0.005
--model singleprompt --lr 0.005
--model mepo --host singleprompt --lr 0.005
--model mepo --host dualprompt --meta_path none
--model mepo --host dualprompt --cor_path none --lr 0.005
--model mepo --host coda --meta_path none
--model mepo --host coda --cor_path none
--model mepo --host singleprompt --meta_path none
--model mepo --host singleprompt --cor_path none
ROWS
