#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# modes must fail for a cell that is neither tried nor listed as impossible, and name it: some are left out, one at a time.
# usage: cells_test.sh MODES

n=0
for cell in 1 2 999 3467 6936; do
	n=$((n + 1))
	if out=$("$1" --samples 1 --forget $cell); then
		echo "not ok $n - nobody missed cell $cell"
	elif [ "$(echo "$out" | grep -c '^# no case: ')" != 1 ] || [ "$(echo "$out" | grep -c '^not ok')" != 1 ]; then
		echo "not ok $n - something else failed than the cell that was left out"
	else
		echo "ok $n - $(echo "$out" | sed -n 's/^# no case: /missed: /p')"
	fi
done
if "$1" --samples 1 --forget 6937 > /dev/null; then
	echo "ok 6 - with no cell left out all are there"
else
	echo "not ok 6 - a cell is missing, or cell 6937 exists"
fi
echo 1..6
