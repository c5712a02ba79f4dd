/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 16550A serial port, as the data sheet of National's PC16550D describes it. The line is infinitely fast. */
#include "vmm/dev/i16550.h"

#include <string.h>

#include <linux/serial_reg.h>

#define COM1_PORT     0x3f8
#define IIR_FIFOS_ON  0xc0
#define TRIGGER_SHIFT 6

static unsigned fifo_room(const struct i16550 *uart)
{
	return (uart->fcr & UART_FCR_ENABLE_FIFO ? I16550_FIFO : 1) - uart->fifo_count;
}

static unsigned fifo_trigger(const struct i16550 *uart)
{
	static const u8 levels[] = { 1, 4, 8, 14 };

	return uart->fcr & UART_FCR_ENABLE_FIFO ? levels[uart->fcr >> TRIGGER_SHIFT] : 1;
}

/* The interrupt of the highest priority, as "Interrupt Identification Register" orders them. */
static u8 iir_value(const struct i16550 *uart)
{
	if (uart->ier & UART_IER_RLSI && uart->lsr & UART_LSR_BRK_ERROR_BITS)
		return UART_IIR_RLSI;
	if (uart->ier & UART_IER_RDI && uart->fifo_count >= fifo_trigger(uart))
		return UART_IIR_RDI;
	if (uart->ier & UART_IER_RDI && uart->fifo_count)
		return UART_IIR_RX_TIMEOUT;
	if (uart->ier & UART_IER_THRI && uart->thre_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

/* OUT2 gates the line on a PC. */
static void line_update(struct i16550 *uart)
{
	const int level = iir_value(uart) != UART_IIR_NO_INT && uart->mcr & UART_MCR_OUT2;

	if (level == uart->level)
		return;
	uart->level = level;
	uart->irq.set(uart->irq.owner, uart->irq.gsi, level);
}

static void fifo_push(struct i16550 *uart, u8 byte)
{
	if (!fifo_room(uart)) {
		uart->lsr |= UART_LSR_OE;
		return;
	}
	uart->fifo[(uart->fifo_at + uart->fifo_count++) % I16550_FIFO] = byte;
	uart->lsr |= UART_LSR_DR;
}

/* From the host's queue, as far as the FIFO has room; the host never overruns the guest. */
static void fifo_refill(struct i16550 *uart)
{
	while (uart->queue_count && fifo_room(uart) && !(uart->mcr & UART_MCR_LOOP)) {
		fifo_push(uart, uart->queue[uart->queue_at]);
		uart->queue_at = (uart->queue_at + 1) % I16550_QUEUE;
		uart->queue_count--;
	}
}

static u8 fifo_pop(struct i16550 *uart)
{
	u8 byte = 0;

	if (uart->fifo_count) {
		byte = uart->fifo[uart->fifo_at];
		uart->fifo_at = (uart->fifo_at + 1) % I16550_FIFO;
		uart->fifo_count--;
	}
	if (!uart->fifo_count)
		uart->lsr &= ~UART_LSR_DR;
	fifo_refill(uart);
	return byte;
}

static u8 msr_value(const struct i16550 *uart)
{
	u8 out = uart->mcr;

	if (!(uart->mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	return (out & UART_MCR_RTS ? UART_MSR_CTS : 0) | (out & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	       (out & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (out & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static u8 iir_read(struct i16550 *uart)
{
	u8 iir = iir_value(uart);

	if (iir == UART_IIR_THRI)
		uart->thre_pending = false;
	return iir | (uart->fcr & UART_FCR_ENABLE_FIFO ? IIR_FIFOS_ON : 0);
}

static u8 lsr_read(struct i16550 *uart)
{
	u8 lsr = uart->lsr;

	uart->lsr &= ~UART_LSR_BRK_ERROR_BITS;
	return lsr;
}

static u8 register_read(struct i16550 *uart, u16 offset)
{
	const bool dlab = uart->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_RX:
		return dlab ? uart->dll : fifo_pop(uart);
	case UART_IER:
		return dlab ? uart->dlm : uart->ier;
	case UART_IIR:
		return iir_read(uart);
	case UART_LCR:
		return uart->lcr;
	case UART_MCR:
		return uart->mcr;
	case UART_LSR:
		return lsr_read(uart);
	case UART_MSR:
		return msr_value(uart);
	default:
		return uart->scr;
	}
}

static void fcr_write(struct i16550 *uart, u8 value)
{
	if ((uart->fcr ^ value) & UART_FCR_ENABLE_FIFO || value & UART_FCR_CLEAR_RCVR) {
		uart->fifo_count = 0;
		uart->lsr &= ~UART_LSR_DR;
	}
	uart->fcr = value & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK);
	if (!(value & UART_FCR_ENABLE_FIFO))
		uart->fcr = 0;
	fifo_refill(uart);
}

static void ier_write(struct i16550 *uart, u8 value)
{
	/* Enabling it while the transmitter is empty, which it always is, raises it. */
	if (value & UART_IER_THRI && !(uart->ier & UART_IER_THRI))
		uart->thre_pending = true;
	uart->ier = value & 0x0f;
}

/* A byte that is to go out; returns whether the host gets it. */
static bool thr_write(struct i16550 *uart, u8 value)
{
	uart->thre_pending = true;
	if (!(uart->mcr & UART_MCR_LOOP))
		return true;
	fifo_push(uart, value);
	return false;
}

static bool register_write(struct i16550 *uart, u16 offset, u8 value)
{
	const bool dlab = uart->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_TX:
		if (!dlab)
			return thr_write(uart, value);
		uart->dll = value;
		break;
	case UART_IER:
		if (dlab)
			uart->dlm = value;
		else
			ier_write(uart, value);
		break;
	case UART_FCR:
		fcr_write(uart, value);
		break;
	case UART_LCR:
		uart->lcr = value;
		break;
	case UART_MCR:
		uart->mcr = value & 0x1f;
		fifo_refill(uart);
		break;
	case UART_SCR:
		uart->scr = value;
		break;
	}
	return false;
}

static u32 i16550_read(void *self, u16 offset, unsigned size)
{
	struct i16550 *uart = self;
	u8 value;

	(void)size;
	pthread_mutex_lock(&uart->lock);
	value = register_read(uart, offset);
	line_update(uart);
	pthread_mutex_unlock(&uart->lock);
	return value;
}

static void i16550_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct i16550 *uart = self;
	bool out;

	(void)size;
	pthread_mutex_lock(&uart->lock);
	out = register_write(uart, offset, (u8)value);
	line_update(uart);
	pthread_mutex_unlock(&uart->lock);
	if (out)
		uart->output(uart->owner, (u8)value);
}

static void i16550_reset(void *self)
{
	struct i16550 *uart = self;

	pthread_mutex_lock(&uart->lock);
	uart->ier = uart->fcr = uart->lcr = uart->mcr = uart->scr = 0;
	uart->dll = 12; /* 9600 baud */
	uart->dlm = 0;
	uart->lsr = UART_LSR_THRE | UART_LSR_TEMT;
	uart->thre_pending = false;
	uart->fifo_count = 0;
	line_update(uart);
	pthread_mutex_unlock(&uart->lock);
}

/* What came from outside is not trusted to be a position. */
static void i16550_restored(void *self)
{
	struct i16550 *uart = self;

	pthread_mutex_lock(&uart->lock);
	uart->fifo_at %= I16550_FIFO;
	uart->queue_at %= I16550_QUEUE;
	if (uart->fifo_count > I16550_FIFO)
		uart->fifo_count = I16550_FIFO;
	if (uart->queue_count > I16550_QUEUE)
		uart->queue_count = I16550_QUEUE;
	line_update(uart);
	pthread_mutex_unlock(&uart->lock);
}

static const struct port_window i16550_windows[] = {
	{ COM1_PORT, 8, IO_1, i16550_read, i16550_write },
};

static const struct device_field i16550_fields[] = {
	DEVICE_FIELD(struct i16550, ier),	   DEVICE_FIELD(struct i16550, fcr),
	DEVICE_FIELD(struct i16550, lcr),	   DEVICE_FIELD(struct i16550, mcr),
	DEVICE_FIELD(struct i16550, lsr),	   DEVICE_FIELD(struct i16550, scr),
	DEVICE_FIELD(struct i16550, dll),	   DEVICE_FIELD(struct i16550, dlm),
	DEVICE_FIELD(struct i16550, thre_pending), DEVICE_FIELD(struct i16550, fifo),
	DEVICE_FIELD(struct i16550, fifo_at),	   DEVICE_FIELD(struct i16550, fifo_count),
	DEVICE_FIELD(struct i16550, queue),	   DEVICE_FIELD(struct i16550, queue_at),
	DEVICE_FIELD(struct i16550, queue_count),
};

void i16550_init(struct i16550 *uart, struct irq_line irq, void (*output)(void *owner, u8 byte),
		 void *owner)
{
	memset(uart, 0, sizeof(*uart));
	pthread_mutex_init(&uart->lock, NULL);
	uart->irq = irq;
	uart->output = output;
	uart->owner = owner;
	uart->device = (struct device){
		.name = "i16550",
		.version = 1,
		.windows = i16550_windows,
		.window_count = ARRAY_SIZE(i16550_windows),
		.reset = i16550_reset,
		.self = uart,
		.has_lock = true,
		.fields = i16550_fields,
		.field_count = ARRAY_SIZE(i16550_fields),
		.restored = i16550_restored,
	};
	i16550_reset(uart);
}

void i16550_destroy(struct i16550 *uart)
{
	pthread_mutex_destroy(&uart->lock);
}

size_t i16550_receive(struct i16550 *uart, const u8 *data, size_t n)
{
	size_t taken = 0;

	pthread_mutex_lock(&uart->lock);
	while (taken < n && uart->queue_count < I16550_QUEUE) {
		uart->queue[(uart->queue_at + uart->queue_count++) % I16550_QUEUE] = data[taken++];
	}
	fifo_refill(uart);
	line_update(uart);
	pthread_mutex_unlock(&uart->lock);
	return taken;
}

size_t i16550_room(struct i16550 *uart)
{
	size_t room;

	pthread_mutex_lock(&uart->lock);
	room = I16550_QUEUE - uart->queue_count;
	pthread_mutex_unlock(&uart->lock);
	return room;
}
