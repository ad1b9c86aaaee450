#!/bin/sh
# Prints the state of the PBS job with this id: running, success or failed. An unknown state counts
# as running, so that a queue that does not answer for a while ends no job.
job=$(qstat -x -f "$1" 2>/dev/null)
case $? in
0) ;;
153) echo failed; exit ;; # no job with this id, not even a finished one
*) echo running; exit ;;
esac
case $job in
*"job_state = F"*"Exit_status = 0"* | *"Exit_status = 0"*"job_state = F"*) echo success ;;
*"job_state = F"*) echo failed ;;
*) echo running ;;
esac
