/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The verbs of the anykvm command. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

/* Each takes its own name as argv[0] and returns the exit status. */
int cmd_run(int argc, char **argv);
int cmd_fetch(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_env(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_ctl(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_explain(int argc, char **argv);

#endif
