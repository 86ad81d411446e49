/*
 * nrf52/port.c: nRF52840. Register names, and the chapters named in comments, are those of the
 * nRF52840 Product Specification v1.7.
 *
 * From the board file, [build.defines]: UART_TX_PIN, UART_RX_PIN, TRIGGER_PIN as 32 * port + pin.
 */
#include "port.h"

#include <stdbool.h>

#include "cortex_m.h"

_Static_assert(HIL_CLOCK_HZ == 64000000, "the nRF52840's core has one clock");

/* CLOCK, POWER; a task starts when 1 is written, an event reads 1 when it has happened. */
#define CLOCK_TASKS_HFCLKSTART REGISTER(0x40000000)
#define CLOCK_EVENTS_HFCLKSTARTED REGISTER(0x40000100)
#define POWER_DCDCEN REGISTER(0x40000578)
/* Debug and trace, access port protection: chips from build code Fxx close the debug port at each reset unless this is written. */
#define APPROTECT_DISABLE REGISTER(0x40000558)
#define APPROTECT_DISABLE_SWDISABLE 0x5Au
/* NVMC */
#define NVMC_ICACHECNF REGISTER(0x4001E540)
#define NVMC_ICACHECNF_CACHEEN (1u << 0)
/* GPIO, ports 0 and 1 */
#define GPIO(pin, offset) REGISTER(0x50000000u + 0x300u * ((pin) / 32u) + (offset))
#define GPIO_OUTSET(pin) GPIO(pin, 0x508u)
#define GPIO_OUTCLR(pin) GPIO(pin, 0x50Cu)
#define GPIO_PIN_CNF(pin) GPIO(pin, 0x700u + 4u * ((pin) % 32u))
#define GPIO_BIT(pin) (1u << ((pin) % 32u))
#define GPIO_PIN_CNF_OUTPUT 0x3u    /* direction output, input buffer disconnected */
#define GPIO_PIN_CNF_PULLED_UP 0xCu /* direction input, input buffer connected, pull-up: silent when nobody drives it */
/* UART, the byte-wise one: no DMA, so nothing but the core touches RAM */
#define UART_TASKS_STARTRX REGISTER(0x40002000)
#define UART_TASKS_STARTTX REGISTER(0x40002008)
#define UART_EVENTS_RXDRDY REGISTER(0x40002108)
#define UART_EVENTS_TXDRDY REGISTER(0x4000211C)
#define UART_ENABLE REGISTER(0x40002500)
#define UART_ENABLE_ENABLED 4u
#define UART_PSELRTS REGISTER(0x40002508)
#define UART_PSELTXD REGISTER(0x4000250C)
#define UART_PSELCTS REGISTER(0x40002510)
#define UART_PSELRXD REGISTER(0x40002514)
#define UART_PSEL_DISCONNECTED 0xFFFFFFFFu
#define UART_RXD REGISTER(0x40002518)
#define UART_TXD REGISTER(0x4000251C)
#define UART_BAUDRATE REGISTER(0x40002524)
#define UART_CONFIG REGISTER(0x4000256C)
#define UART_CONFIG_8N1_NO_FLOW_CONTROL 0u
/* TIMER0 */
#define TIMER0_TASKS_START REGISTER(0x40008000)
#define TIMER0_TASKS_CAPTURE0 REGISTER(0x40008040)
#define TIMER0_MODE REGISTER(0x40008504)
#define TIMER0_MODE_TIMER 0u
#define TIMER0_BITMODE REGISTER(0x40008508)
#define TIMER0_BITMODE_32BIT 3u
#define TIMER0_PRESCALER REGISTER(0x40008510)
#define TIMER0_PRESCALER_1MHZ 4u /* 16 MHz / 2^4 */
#define TIMER0_CC0 REGISTER(0x40008540)

/* BAUDRATE is the baud rate as a fraction of 16 MHz in 32 bits, of which the upper 20 count. */
#define UART_BAUDRATE_VALUE ((uint32_t)(((HIL_BAUD * 0x100000000ull) / 16000000u + 0x800u) & 0xFFFFF000u))

static bool sending; /* a byte was handed to the transmitter and its TXDRDY not yet seen */

static void clocks_init(void)
{
    POWER_DCDCEN = 1;
    CLOCK_EVENTS_HFCLKSTARTED = 0;
    CLOCK_TASKS_HFCLKSTART = 1; /* the crystal instead of the RC oscillator */
    while (CLOCK_EVENTS_HFCLKSTARTED == 0) {
    }
    NVMC_ICACHECNF = NVMC_ICACHECNF_CACHEEN; /* off at reset */
}

static void uart_init(void)
{
    GPIO_OUTSET(UART_TX_PIN) = GPIO_BIT(UART_TX_PIN); /* the line idles high */
    GPIO_PIN_CNF(UART_TX_PIN) = GPIO_PIN_CNF_OUTPUT;
    GPIO_PIN_CNF(UART_RX_PIN) = GPIO_PIN_CNF_PULLED_UP;
    UART_PSELRTS = UART_PSEL_DISCONNECTED;
    UART_PSELTXD = UART_TX_PIN;
    UART_PSELCTS = UART_PSEL_DISCONNECTED;
    UART_PSELRXD = UART_RX_PIN;
    UART_CONFIG = UART_CONFIG_8N1_NO_FLOW_CONTROL;
    UART_BAUDRATE = UART_BAUDRATE_VALUE;
    UART_ENABLE = UART_ENABLE_ENABLED;
    UART_EVENTS_RXDRDY = 0;
    UART_EVENTS_TXDRDY = 0;
    UART_TASKS_STARTRX = 1;
    UART_TASKS_STARTTX = 1;
}

void port_init(void)
{
    APPROTECT_DISABLE = APPROTECT_DISABLE_SWDISABLE;
    clocks_init();

    TIMER0_MODE = TIMER0_MODE_TIMER;
    TIMER0_BITMODE = TIMER0_BITMODE_32BIT;
    TIMER0_PRESCALER = TIMER0_PRESCALER_1MHZ;
    TIMER0_TASKS_START = 1;

    GPIO_OUTCLR(TRIGGER_PIN) = GPIO_BIT(TRIGGER_PIN);
    GPIO_PIN_CNF(TRIGGER_PIN) = GPIO_PIN_CNF_OUTPUT;
    uart_init();
}

uint32_t port_clock_hz(void)
{
    return HIL_CLOCK_HZ;
}

uint8_t port_uart_read(void)
{
    while (UART_EVENTS_RXDRDY == 0) {
    }
    /* Cleared before the read: if another byte waits behind this one, the read sets the event again. */
    UART_EVENTS_RXDRDY = 0;
    return (uint8_t)UART_RXD;
}

void port_uart_write(uint8_t byte)
{
    port_uart_flush();
    UART_TXD = byte;
    sending = true;
}

void port_uart_flush(void)
{
    while (sending && UART_EVENTS_TXDRDY == 0) {
    }
    UART_EVENTS_TXDRDY = 0;
    sending = false;
}

uint32_t port_coarse_us(void)
{
    TIMER0_TASKS_CAPTURE0 = 1;
    return TIMER0_CC0;
}

void port_trigger(int high)
{
    if (high != 0) {
        GPIO_OUTSET(TRIGGER_PIN) = GPIO_BIT(TRIGGER_PIN);
    } else {
        GPIO_OUTCLR(TRIGGER_PIN) = GPIO_BIT(TRIGGER_PIN);
    }
}

void port_memory(int caches_on, uint32_t more_wait_states)
{
    (void)more_wait_states;
    NVMC_ICACHECNF = 0; /* switching it off empties it */
    cortex_m_sync();
    NVMC_ICACHECNF = caches_on != 0 ? NVMC_ICACHECNF_CACHEEN : 0;
    cortex_m_sync();
}

_Noreturn void port_reset(void)
{
    cortex_m_reset();
}
