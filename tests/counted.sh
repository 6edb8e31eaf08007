#!/usr/bin/env bash
# Runs a command whose last line is "N passed, M failed, K skipped", and adds that to the file CHECK_TALLY instead of
# printing it. usage: counted.sh COMMAND...
set -u -o pipefail

if [ -z "${CHECK_TALLY:-}" ]; then
    exec "$@"
fi
"$@" | awk -v tally="$CHECK_TALLY" '
    NR > 1 { print last; fflush() }
    { last = $0 }
    END {
        if (last ~ /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/) {
            split(last, word, " ")
            print word[1], word[3], word[5] >>tally
        } else {
            print last
            print 0, 1, 0 >>tally # it did not come to its end
        }
    }'
