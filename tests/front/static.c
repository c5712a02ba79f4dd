/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A statically linked program, into which the preload library cannot get. */
int main(void)
{
	return 0;
}
