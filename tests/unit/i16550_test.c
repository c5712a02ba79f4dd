/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 16550: output, interrupts in the order that drivers rely on, loopback, input with back-pressure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/serial_reg.h>

#include "vmm/dev/bus.h"
#include "vmm/dev/i16550.h"

#define PORT 0x3f8

static struct i16550 uart;
static struct bus *bus;
static u8 sent[64];
static unsigned sent_count;
static int level;
static unsigned rises;

static void output(void *owner, u8 byte)
{
	(void)owner;
	sent[sent_count++ % sizeof(sent)] = byte;
}

static void irq(void *owner, unsigned gsi, int value)
{
	(void)owner;
	assert_int_equal(gsi, 4);
	rises += value && !level;
	level = value;
}

static void out(u16 reg, u8 value)
{
	bus_write(bus, PORT + reg, 1, value);
}

static u8 in(u16 reg)
{
	return (u8)bus_read(bus, PORT + reg, 1);
}

static int setup(void **state)
{
	(void)state;
	bus = calloc(1, sizeof(*bus));
	sent_count = rises = 0;
	level = 0;
	i16550_init(&uart, (struct irq_line){ irq, NULL, 4 }, output, NULL);
	return bus_add(bus, &uart.device);
}

static int teardown(void **state)
{
	(void)state;
	i16550_destroy(&uart);
	free(bus);
	return 0;
}

static void test_registers(void **state)
{
	(void)state;
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	out(UART_SCR, 0x5a);
	assert_int_equal(in(UART_SCR), 0x5a);
	out(UART_LCR, UART_LCR_DLAB | 3);
	out(UART_DLL, 1);
	out(UART_DLM, 2);
	assert_int_equal(in(UART_DLL), 1);
	assert_int_equal(in(UART_DLM), 2);
	out(UART_LCR, 3);
	assert_int_equal(sent_count, 0);
	out(UART_IER, 0xff);
	assert_int_equal(in(UART_IER), 0x0f);
	/* How drivers tell a 16550A: both FIFO bits. */
	assert_int_equal(in(UART_IIR)&0xc0, 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(UART_IIR)&0xc0, 0xc0);
}

static void test_transmit_interrupt(void **state)
{
	(void)state;
	out(UART_MCR, UART_MCR_OUT2);
	assert_int_equal(level, 0);
	out(UART_IER, UART_IER_THRI);
	assert_int_equal(level, 1); /* the transmitter is empty */
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_THRI);
	assert_int_equal(level, 0); /* reading it is the answer */
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_NO_INT);
	for (unsigned i = 0; i < 16; i++)
		out(UART_TX, (u8)('a' + i));
	assert_int_equal(level, 1);
	assert_int_equal(rises, 2); /* one edge for sixteen bytes */
	assert_int_equal(sent_count, 16);
	assert_memory_equal(sent, "abcdefghijklmnop", 16);
	out(UART_IER, 0);
	assert_int_equal(level, 0);
}

static void test_gate(void **state)
{
	(void)state;
	out(UART_IER, UART_IER_THRI);
	assert_int_equal(level, 0); /* OUT2 is off */
	out(UART_MCR, UART_MCR_OUT2);
	assert_int_equal(level, 1);
}

static void test_receive(void **state)
{
	u8 data[40];

	(void)state;
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (u8)i;
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_14);
	out(UART_MCR, UART_MCR_OUT2);
	out(UART_IER, UART_IER_RDI);
	assert_int_equal(i16550_receive(&uart, data, 3), 3);
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_RX_TIMEOUT); /* below the trigger */
	assert_int_equal(level, 1);
	assert_int_equal(i16550_receive(&uart, data + 3, 37), 37);
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_RDI);
	for (unsigned i = 0; i < 40; i++) {
		assert_true(in(UART_LSR)&UART_LSR_DR);
		assert_int_equal(in(UART_RX), i);
	}
	assert_false(in(UART_LSR) & (UART_LSR_DR | UART_LSR_OE));
	assert_int_equal(level, 0);
	assert_int_equal(in(UART_RX), 0);
}

static void test_pressure(void **state)
{
	static u8 data[I16550_QUEUE + 100];

	(void)state;
	/* One byte goes on to the register, the rest waits. */
	assert_int_equal(i16550_receive(&uart, data, sizeof(data)), I16550_QUEUE);
	assert_int_equal(i16550_room(&uart), 1);
	in(UART_RX);
	assert_int_equal(i16550_room(&uart), 2);
}

static void test_loopback(void **state)
{
	(void)state;
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(UART_TX, 0xaa);
	assert_int_equal(sent_count, 0);
	assert_true(in(UART_LSR)&UART_LSR_DR);
	out(UART_TX, 0xbb); /* no FIFO: overrun */
	assert_true(in(UART_LSR)&UART_LSR_OE);
	assert_false(in(UART_LSR)&UART_LSR_OE);
	assert_int_equal(in(UART_RX), 0xaa);
	out(UART_MCR, 0);
	assert_int_equal(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
}

/* Any sequence of accesses leaves counters in range. */
static void test_random(void **state)
{
	u8 data[32] = { 0 };

	(void)state;
	srand(1);
	for (unsigned i = 0; i < 200000; i++) {
		const u16 port = (u16)(PORT + rand() % 8);
		const unsigned size = 1u << rand() % 3;

		if (rand() & 1)
			bus_write(bus, port, size, (u32)rand());
		else
			bus_read(bus, port, size);
		if (rand() % 16 == 0)
			i16550_receive(&uart, data, (size_t)rand() % sizeof(data));
		assert_true(uart.fifo_count <= I16550_FIFO);
		assert_true(uart.queue_count <= I16550_QUEUE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transmit_interrupt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pressure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loopback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
