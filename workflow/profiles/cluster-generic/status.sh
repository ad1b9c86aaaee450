#!/bin/sh
# How the PBS job of this id fares: running, success or failed. What is not known is taken to run,
# so that a queue that does not answer for a while ends nothing.
job=$(qstat -x -f "$1" 2>/dev/null)
case $? in
0) ;;
153) echo failed; exit ;; # no job of this id, not even among those that have ended
*) echo running; exit ;;
esac
case $job in
*"job_state = F"*"Exit_status = 0"* | *"Exit_status = 0"*"job_state = F"*) echo success ;;
*"job_state = F"*) echo failed ;;
*) echo running ;;
esac
