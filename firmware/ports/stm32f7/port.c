/*
 * stm32f7/port.c: STM32F745/F746/F750/F756. RM = RM0385 (reference manual), DS = DS10916 (data sheet),
 * PM = PM0253 (Cortex-M7 programming manual).
 *
 * From the board file, [build.defines]: HSE_HZ (crystal or clock on OSC_IN), HSE_BYPASS (1: a clock, 0: a crystal),
 * UART (1, 3 or 6), UART_TX_PIN, UART_RX_PIN and TRIGGER_PIN as 16 * port + pin (port 0 is GPIOA).
 */
#include "port.h"

#include "cortex_m.h"

/* Core clock; APB2 runs at half of it, APB1 at a quarter, APB1's timers at half (RM 5.2, clock tree). */
_Static_assert(HIL_CLOCK_HZ == 216000000, "this port sets 216 MHz");
_Static_assert(HSE_HZ % 1000000 == 0, "the PLL's input is HSE_HZ divided to 1 MHz");
#define APB1_HZ (HIL_CLOCK_HZ / 4u)
#define APB2_HZ (HIL_CLOCK_HZ / 2u)
#define TIM2_HZ (HIL_CLOCK_HZ / 2u)

/* RCC (RM 5.3) */
#define RCC_CR REGISTER(0x40023800)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_HSEBYP (1u << 18)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_PLLCFGR REGISTER(0x40023804)
#define RCC_PLLCFGR_PLLM (HSE_HZ / 1000000u << 0) /* 1 MHz into the PLL */
#define RCC_PLLCFGR_PLLN (432u << 6)              /* 432 MHz VCO */
#define RCC_PLLCFGR_PLLP_DIV2 (0u << 16)          /* 216 MHz */
#define RCC_PLLCFGR_PLLSRC_HSE (1u << 22)
#define RCC_PLLCFGR_PLLQ (9u << 24) /* 48 MHz */
#define RCC_CFGR REGISTER(0x40023808)
#define RCC_CFGR_SW_PLL (2u << 0)
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS_PLL (2u << 2)
#define RCC_CFGR_PPRE1_DIV4 (5u << 10)
#define RCC_CFGR_PPRE2_DIV2 (4u << 13)
#define RCC_AHB1ENR REGISTER(0x40023830) /* bit n: GPIO port n */
#define RCC_APB1ENR REGISTER(0x40023840)
#define RCC_APB1ENR_TIM2EN (1u << 0)
#define RCC_APB1ENR_PWREN (1u << 28)
#define RCC_APB2ENR REGISTER(0x40023844)
/* PWR (RM 4.4) */
#define PWR_CR1 REGISTER(0x40007000)
#define PWR_CR1_VOS_SCALE1 (3u << 14)
#define PWR_CR1_ODEN (1u << 16)
#define PWR_CR1_ODSWEN (1u << 17)
#define PWR_CSR1 REGISTER(0x40007004)
#define PWR_CSR1_VOSRDY (1u << 14)
#define PWR_CSR1_ODRDY (1u << 16)
#define PWR_CSR1_ODSWRDY (1u << 17)
/* FLASH (RM 3.7); 7 wait states at 216 MHz from 2.7 V on (RM 3.3, read access latency) */
#define FLASH_ACR REGISTER(0x40023C00)
#define FLASH_ACR_LATENCY (0xFu << 0)
#define FLASH_ACR_LATENCY_7WS (7u << 0)
#define FLASH_ACR_PRFTEN (1u << 8)
#define FLASH_ACR_ARTEN (1u << 9)
#define FLASH_ACR_ARTRST (1u << 11) /* only while the accelerator is off */
#define GPIO_BASE 0x40020000u /* RM 2.2 */
/* USART (RM 31.8): base address, enable bit, clock and alternate function (DS, alternate function mapping) of the one that is wired */
#if UART == 1
#define USART_BASE 0x40011000u
#define USART_ENR RCC_APB2ENR
#define USART_EN (1u << 4)
#define USART_CLOCK_HZ APB2_HZ
#define USART_AF 7u
#elif UART == 3
#define USART_BASE 0x40004800u
#define USART_ENR RCC_APB1ENR
#define USART_EN (1u << 18)
#define USART_CLOCK_HZ APB1_HZ
#define USART_AF 7u
#elif UART == 6
#define USART_BASE 0x40011400u
#define USART_ENR RCC_APB2ENR
#define USART_EN (1u << 5)
#define USART_CLOCK_HZ APB2_HZ
#define USART_AF 8u
#else
#error "UART in the board file should be 1, 3 or 6"
#endif
/* Caches of the Cortex-M7 (PM, system control block and cache maintenance) */
#define SCB_CCR_DC (1u << 16)
#define SCB_CCR_IC (1u << 17)
#define SCB_CCSIDR REGISTER(0xE000ED80)
#define SCB_CSSELR REGISTER(0xE000ED84)
#define SCB_CSSELR_L1_DATA 0u
#define SCB_ICIALLU REGISTER(0xE000EF50)
#define SCB_DCISW REGISTER(0xE000EF60)
#define SCB_DCCISW REGISTER(0xE000EF74)

#include "stm32.h"

/* RM 4.1.4, entering over-drive mode; RM 3.3, raising the clock: wait states first. */
static void clocks_init(void)
{
    RCC_APB1ENR |= RCC_APB1ENR_PWREN;
    (void)RCC_APB1ENR; /* two cycles pass before the peripheral answers (RM 5.2) */
    PWR_CR1 |= PWR_CR1_VOS_SCALE1;

    RCC_CR |= RCC_CR_HSEON | (HSE_BYPASS != 0 ? RCC_CR_HSEBYP : 0u);
    wait_for(&RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY);
    RCC_PLLCFGR = RCC_PLLCFGR_PLLM | RCC_PLLCFGR_PLLN | RCC_PLLCFGR_PLLP_DIV2 | RCC_PLLCFGR_PLLSRC_HSE | RCC_PLLCFGR_PLLQ;
    RCC_CR |= RCC_CR_PLLON;
    PWR_CR1 |= PWR_CR1_ODEN;
    wait_for(&PWR_CSR1, PWR_CSR1_ODRDY, PWR_CSR1_ODRDY);
    PWR_CR1 |= PWR_CR1_ODSWEN;
    wait_for(&PWR_CSR1, PWR_CSR1_ODSWRDY, PWR_CSR1_ODSWRDY);
    wait_for(&PWR_CSR1, PWR_CSR1_VOSRDY, PWR_CSR1_VOSRDY);

    FLASH_ACR = FLASH_ACR_LATENCY_7WS | FLASH_ACR_PRFTEN | FLASH_ACR_ARTEN;
    wait_for(&FLASH_ACR, FLASH_ACR_LATENCY, FLASH_ACR_LATENCY_7WS);
    RCC_CFGR = RCC_CFGR_PPRE1_DIV4 | RCC_CFGR_PPRE2_DIV2;
    wait_for(&RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY);
    RCC_CFGR |= RCC_CFGR_SW_PLL;
    wait_for(&RCC_CFGR, RCC_CFGR_SWS, RCC_CFGR_SWS_PLL);
}

/* One maintenance operation for every line of the data cache: DCISW drops it, DCCISW writes it back first. */
static void data_cache_lines(volatile uint32_t *operation)
{
    SCB_CSSELR = SCB_CSSELR_L1_DATA;
    cortex_m_sync();
    uint32_t last_set = SCB_CCSIDR >> 13 & 0x7FFFu;
    uint32_t last_way = SCB_CCSIDR >> 3 & 0x3FFu; /* 3: four ways, hence bits 31:30 of the operand */
    for (uint32_t set = 0; set <= last_set; set++) {
        for (uint32_t way = 0; way <= last_way; way++) {
            *operation = way << 30 | set << 5;
        }
    }
    cortex_m_sync();
}

/* Both caches hold random bytes after power-on and are invalidated before they are switched on. */
static void caches_on(void)
{
    SCB_ICIALLU = 0;
    data_cache_lines(&SCB_DCISW);
    SCB_CCR |= SCB_CCR_IC | SCB_CCR_DC;
    cortex_m_sync();
}

static void caches_off(void)
{
    SCB_CCR &= ~SCB_CCR_DC;
    cortex_m_sync();
    data_cache_lines(&SCB_DCCISW); /* with the cache off nothing is written into it meanwhile */
    SCB_CCR &= ~SCB_CCR_IC;
    cortex_m_sync();
}

void port_init(void)
{
    clocks_init();
    caches_on();

    RCC_AHB1ENR |= 1u << UART_TX_PIN / 16 | 1u << UART_RX_PIN / 16 | 1u << TRIGGER_PIN / 16;
    RCC_APB1ENR |= RCC_APB1ENR_TIM2EN;
    USART_ENR |= USART_EN;
    (void)USART_ENR;

    stm32_start(TIM2_HZ, UART_TX_PIN, UART_RX_PIN, (USART_CLOCK_HZ + HIL_BAUD / 2u) / HIL_BAUD);
}

void port_memory(int with_caches, uint32_t more_wait_states)
{
    uint32_t latency = FLASH_ACR_LATENCY_7WS + more_wait_states;
    if ((SCB_CCR & SCB_CCR_DC) != 0) {
        caches_off();
    }
    FLASH_ACR = latency | FLASH_ACR_PRFTEN;
    wait_for(&FLASH_ACR, FLASH_ACR_LATENCY, latency);
    FLASH_ACR |= FLASH_ACR_ARTRST;
    FLASH_ACR &= ~FLASH_ACR_ARTRST;
    if (with_caches != 0) {
        FLASH_ACR |= FLASH_ACR_ARTEN;
        caches_on();
    }
}
