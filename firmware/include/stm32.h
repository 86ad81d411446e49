/*
 * stm32.h: what the ports of the STM32 families share: GPIO, the USART, TIM2 and what of port.h needs only these.
 * Included by the one port.c of a firmware, behind its GPIO_BASE, USART_BASE (a USART or LPUART: they have these registers
 * in common), USART_AF (its alternate function) and TRIGGER_PIN. Pins are 16 * port + pin, port 0 is GPIOA.
 * RM0385 (STM32F7) 6.4, 23.4, 31.8; RM0432 (STM32L4+), GPIO, general-purpose timers, USART and LPUART registers.
 */
#ifndef HIL_STM32_H
#define HIL_STM32_H

#include "cortex_m.h"
#include "port.h"

#define GPIO(pin, offset) REGISTER(GPIO_BASE + 0x400u * ((pin) / 16u) + (offset))
#define GPIO_MODER(pin) GPIO(pin, 0x00u)
#define GPIO_OSPEEDR(pin) GPIO(pin, 0x08u)
#define GPIO_PUPDR(pin) GPIO(pin, 0x0Cu)
#define GPIO_BSRR(pin) GPIO(pin, 0x18u)
#define GPIO_AFR(pin) GPIO(pin, 0x20u + 4u * ((pin) % 16u / 8u))
#define GPIO_MODER_OUTPUT 1u
#define GPIO_MODER_ALTERNATE 2u
#define GPIO_OSPEEDR_HIGH 2u
#define GPIO_PUPDR_PULL_UP 1u

#define USART_CR1 REGISTER(USART_BASE + 0x00u)
#define USART_CR1_UE (1u << 0)
#define USART_CR1_RE (1u << 2)
#define USART_CR1_TE (1u << 3)
#define USART_BRR REGISTER(USART_BASE + 0x0Cu)
#define USART_ISR REGISTER(USART_BASE + 0x1Cu)
#define USART_ISR_ORE (1u << 3)
#define USART_ISR_RXNE (1u << 5)
#define USART_ISR_TC (1u << 6)
#define USART_ISR_TXE (1u << 7)
#define USART_ICR REGISTER(USART_BASE + 0x20u)
#define USART_ICR_ORECF (1u << 3)
#define USART_RDR REGISTER(USART_BASE + 0x24u)
#define USART_TDR REGISTER(USART_BASE + 0x28u)

#define TIM2_CR1 REGISTER(0x40000000)
#define TIM2_CR1_CEN (1u << 0)
#define TIM2_EGR REGISTER(0x40000014)
#define TIM2_EGR_UG (1u << 0)
#define TIM2_CNT REGISTER(0x40000024)
#define TIM2_PSC REGISTER(0x40000028)
#define TIM2_ARR REGISTER(0x4000002C)

static void wait_for(volatile uint32_t *reg, uint32_t mask, uint32_t value)
{
    while ((*reg & mask) != value) {
    }
}

static void pin_mode(uint32_t pin, uint32_t mode)
{
    GPIO_MODER(pin) = (GPIO_MODER(pin) & ~(3u << 2 * (pin % 16))) | mode << 2 * (pin % 16);
}

static void uart_pin(uint32_t pin)
{
    GPIO_AFR(pin) = (GPIO_AFR(pin) & ~(0xFu << 4 * (pin % 8))) | USART_AF << 4 * (pin % 8);
    GPIO_OSPEEDR(pin) |= GPIO_OSPEEDR_HIGH << 2 * (pin % 16);
    GPIO_PUPDR(pin) = (GPIO_PUPDR(pin) & ~(3u << 2 * (pin % 16))) | GPIO_PUPDR_PULL_UP << 2 * (pin % 16);
    pin_mode(pin, GPIO_MODER_ALTERNATE);
}

/* Serial port, microsecond timer and trigger pin, once the port has clocked them; timer_hz feeds TIM2. */
static inline void stm32_start(uint32_t timer_hz, uint32_t tx_pin, uint32_t rx_pin, uint32_t usart_brr)
{
    TIM2_PSC = timer_hz / 1000000u - 1;
    TIM2_ARR = 0xFFFFFFFFu;
    TIM2_EGR = TIM2_EGR_UG; /* takes the prescaler over */
    TIM2_CR1 = TIM2_CR1_CEN;

    port_trigger(0);
    pin_mode(TRIGGER_PIN, GPIO_MODER_OUTPUT);
    uart_pin(tx_pin);
    uart_pin(rx_pin);
    USART_BRR = usart_brr;
    USART_CR1 = USART_CR1_UE | USART_CR1_RE | USART_CR1_TE;
}

uint32_t port_clock_hz(void)
{
    return HIL_CLOCK_HZ;
}

uint8_t port_uart_read(void)
{
    for (;;) {
        uint32_t status = USART_ISR;
        if ((status & USART_ISR_ORE) != 0) {
            USART_ICR = USART_ICR_ORECF; /* a byte was lost; the command's CRC will tell */
        }
        if ((status & USART_ISR_RXNE) != 0) {
            return (uint8_t)USART_RDR;
        }
    }
}

void port_uart_write(uint8_t byte)
{
    wait_for(&USART_ISR, USART_ISR_TXE, USART_ISR_TXE);
    USART_TDR = byte;
}

void port_uart_flush(void)
{
    wait_for(&USART_ISR, USART_ISR_TC, USART_ISR_TC);
}

uint32_t port_coarse_us(void)
{
    return TIM2_CNT;
}

void port_trigger(int high)
{
    GPIO_BSRR(TRIGGER_PIN) = 1u << (TRIGGER_PIN % 16 + (high != 0 ? 0 : 16));
}

_Noreturn void port_reset(void)
{
    cortex_m_reset();
}

#endif
