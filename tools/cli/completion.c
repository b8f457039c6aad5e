/* SPDX-License-Identifier: Apache-2.0 */
/* completion.c - the completion script, made from the table of commands: words, then options, their fixed values, and names of volumes, which come
 * from the server. zsh reads the same script through its bashcompinit. */
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"

/* Collects the words that are not options into `first` and `second`; the word behind an option with a value is none. */
static const char head[] = "_strata() {\n"
			   "\tlocal cur=\"${COMP_WORDS[COMP_CWORD]}\" "
			   "prev=\"${COMP_WORDS[COMP_CWORD-1]}\" first= second= value= next= w i\n"
			   "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
			   "\t\tw=${COMP_WORDS[i]}\n"
			   "\t\tif [ -n \"$value\" ]; then value=; continue; fi\n"
			   "\t\tcase $w in\n"
			   "\t\t*=*) ;;\n";

static const char words[] = "\t\t-*) ;;\n"
			    "\t\t*) if [ -z \"$first\" ]; then first=$w; elif [ -z \"$second\" ]; "
			    "then second=$w; fi ;;\n"
			    "\t\tesac\n"
			    "\tdone\n";

static const char tail[] = "\tCOMPREPLY=($(compgen -W \"$next\" -- \"$cur\"))\n"
			   "}\n"
			   "complete -F _strata strata\n";

static const char volumes[] = "$(strata --timeout 2 volume list --json 2>/dev/null | sed -n "
			      "'s/.*\"name\": \"\\([^\"]*\\)\".*/\\1/p')";

/* Options of any command that take a value: "--a|--b" */
static void print_valued(void)
{
	const char *sep = "";

	printf("\t\t");
	for (const struct cli_option *o = cli_global_options; o->name; o++)
		if (o->arg) {
			printf("%s--%s", sep, o->name);
			sep = "|";
		}
	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++)
		for (const struct cli_option *o = cmd->options; o->name; o++)
			if (o->arg)
				printf("|--%s", o->name);
	printf(") value=1 ;;\n");
}

/* What follows an option whose argument is "this|that" */
static void print_choices(void)
{
	printf("\tcase $prev in\n");
	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++)
		for (const struct cli_option *o = cmd->options; o->name; o++) {
			if (!o->arg || !strchr(o->arg, '|'))
				continue;
			printf("\t--%s) next='", o->name);
			for (const char *c = o->arg; *c; c++)
				putchar(*c == '|' ? ' ' : *c);
			printf("' ;;\n");
		}
	printf("\tesac\n");
}

static void print_globals(void)
{
	for (const struct cli_option *o = cli_global_options; o->name; o++)
		printf("--%s ", o->name);
}

/* In a command: its options, or the names of volumes where one is wanted. */
static void print_commands(void)
{
	printf("\t[ -n \"$next\" ] || case \"$first $second\" in\n");
	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++) {
		bool volume =
		    !strncmp(cmd->usage, "VOLUME", 6) ||
		    (!strncmp(cmd->name, "volume ", 7) && !strncmp(cmd->usage, "NAME", 4) &&
		     strcmp(cmd->name, "volume create"));

		printf("\t'%s%s) next='", cmd->name, strchr(cmd->name, ' ') ? "'" : " '*");
		for (const struct cli_option *o = cmd->options; o->name; o++)
			printf("--%s ", o->name);
		print_globals();
		printf("'; [[ $cur == -* ]] || next=%s ;;\n", volume ? volumes : "");
	}
}

/* Before it is complete: the second words of a first one, or the first words. */
static void print_groups(void)
{
	const struct cli_command *last = NULL;

	printf("\t*)\n");
	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++) {
		const char *space = strchr(cmd->name, ' ');

		if (space)
			printf("\t\t[ \"$first\" = %.*s ] && next=\"$next %s\"\n",
			       (int)(space - cmd->name), cmd->name, space + 1);
	}
	printf("\t\t[ -n \"$first\" ] || next='");
	print_globals();
	for (const struct cli_command *cmd = cli_commands; cmd->name; last = cmd, cmd++) {
		size_t len = strcspn(cmd->name, " ");

		if (!last || strncmp(last->name, cmd->name, len) || strcspn(last->name, " ") != len)
			printf(" %.*s", (int)len, cmd->name);
	}
	printf("' ;;\n\tesac\n");
}

int cmd_completion(struct cli *c)
{
	if (!strcmp(c->args[0], "zsh"))
		printf("#compdef strata\nautoload -U +X bashcompinit && bashcompinit\n");
	else if (strcmp(c->args[0], "bash"))
		return cli_usage(c, "completion is made for bash and zsh, not for '%s'", c->args[0]);
	printf("# completion for strata; for this shell: source <(strata completion %s)\n%s",
	       c->args[0], head);
	print_valued();
	printf("%s", words);
	print_choices();
	print_commands();
	print_groups();
	printf("%s", tail);
	return EXIT_OK;
}
