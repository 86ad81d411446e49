/*
 * stm32l4/port.c: STM32L4+ (STM32L4R5/L4S5 and their relatives, which run at 120 MHz). RM = RM0432 (reference manual),
 * DS = DS12023 (data sheet).
 *
 * From the board file, [build.defines]: LSE_HZ (the crystal that trims the clock), LPUART1_TX_PIN, LPUART1_RX_PIN and
 * TRIGGER_PIN as 16 * port + pin (port 0 is GPIOA). The virtual COM port is LPUART1.
 *
 * The clock comes from MSI, which the crystal LSE trims to 0.25 % or better (DS): boards bring LSE, but seldom a source of
 * HSE, and HSI16 is within 1 % only. Trimmed, MSI has 122 times LSE, 0.06 % less than its nominal 4 MHz.
 */
#include "port.h"

#include "cortex_m.h"

/* Core, buses and TIM2 all run at HIL_CLOCK_HZ (RM, clock tree): no bus needs a lower clock. */
_Static_assert(HIL_CLOCK_HZ == 120000000, "this port sets 120 MHz");
_Static_assert(LSE_HZ == 32768, "MSI is trimmed by a crystal of 32.768 kHz");

/* RCC (RM, RCC registers) */
#define RCC_CR REGISTER(0x40021000) /* reset value: MSI on, 4 MHz */
#define RCC_CR_MSIPLLEN (1u << 2)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_CFGR REGISTER(0x40021008)
#define RCC_CFGR_SW_PLL (3u << 0)
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS_PLL (3u << 2)
#define RCC_CFGR_HPRE (0xFu << 4)
#define RCC_CFGR_HPRE_DIV2 (8u << 4)
#define RCC_PLLCFGR REGISTER(0x4002100C)
#define RCC_PLLCFGR_PLLSRC_MSI (1u << 0)
#define RCC_PLLCFGR_PLLM_DIV1 (0u << 4) /* 4 MHz into the PLL */
#define RCC_PLLCFGR_PLLN (60u << 8)     /* 240 MHz VCO */
#define RCC_PLLCFGR_PLLREN (1u << 24)
#define RCC_PLLCFGR_PLLR_DIV2 (0u << 25) /* 120 MHz */
#define RCC_AHB2ENR REGISTER(0x4002104C) /* bit n: GPIO port n */
#define RCC_APB1ENR1 REGISTER(0x40021058)
#define RCC_APB1ENR1_TIM2EN (1u << 0)
#define RCC_APB1ENR1_PWREN (1u << 28)
#define RCC_APB1ENR2 REGISTER(0x4002105C)
#define RCC_APB1ENR2_LPUART1EN (1u << 0)
#define RCC_BDCR REGISTER(0x40021090)
#define RCC_BDCR_LSEON (1u << 0)
#define RCC_BDCR_LSERDY (1u << 1)
/* PWR (RM, PWR registers) */
#define PWR_CR1 REGISTER(0x40007000)
#define PWR_CR1_DBP (1u << 8)
#define PWR_CR1_VOS_RANGE1 (1u << 9)
#define PWR_CR2 REGISTER(0x40007004)
#define PWR_CR2_IOSV (1u << 9)
#define PWR_SR2 REGISTER(0x40007014)
#define PWR_SR2_VOSF (1u << 10)
#define PWR_CR5 REGISTER(0x40007080)
#define PWR_CR5_R1MODE (1u << 8)
/* FLASH (RM, FLASH registers); 5 wait states at 120 MHz in range 1 boost mode (RM, read access latency) */
#define FLASH_ACR REGISTER(0x40022000)
#define FLASH_ACR_LATENCY (0xFu << 0)
#define FLASH_ACR_LATENCY_5WS (5u << 0)
#define FLASH_ACR_PRFTEN (1u << 8)
#define FLASH_ACR_ICEN (1u << 9)
#define FLASH_ACR_DCEN (1u << 10)
#define FLASH_ACR_ICRST (1u << 11) /* only while the cache is off */
#define FLASH_ACR_DCRST (1u << 12)
#define GPIO_BASE 0x48000000u /* RM, memory map */
/* LPUART1; clocked by APB1 as after reset */
#define USART_BASE 0x40008000u /* RM, memory map */
#define USART_AF 8u            /* DS, alternate function */
#define LPUART_BRR_VALUE ((uint32_t)((256ull * HIL_CLOCK_HZ + HIL_BAUD / 2u) / HIL_BAUD)) /* RM, LPUART baud rate */
_Static_assert(LPUART_BRR_VALUE >= 0x300 && LPUART_BRR_VALUE <= 0xFFFFF, "what LPUART_BRR takes");

#include "stm32.h"

/* LSE lies in the backup domain: it keeps running over a reset, and takes up to seconds to start only after power-on. */
static void msi_trim(void)
{
    PWR_CR1 = PWR_CR1_VOS_RANGE1 | PWR_CR1_DBP;
    wait_for(&PWR_CR1, PWR_CR1_DBP, PWR_CR1_DBP);
    RCC_BDCR |= RCC_BDCR_LSEON;
    wait_for(&RCC_BDCR, RCC_BDCR_LSERDY, RCC_BDCR_LSERDY);
    RCC_CR |= RCC_CR_MSIPLLEN; /* has an effect only once LSE is ready */
}

/*
 * RM, dynamic voltage scaling, to range 1 boost mode: halve the bus clock, boost, wait states, switch, and after 1 us at
 * least take the whole clock.
 */
static void clocks_init(void)
{
    RCC_CFGR = RCC_CFGR_HPRE_DIV2;
    PWR_CR5 &= ~PWR_CR5_R1MODE;
    wait_for(&PWR_SR2, PWR_SR2_VOSF, 0);
    FLASH_ACR = FLASH_ACR_LATENCY_5WS | FLASH_ACR_PRFTEN | FLASH_ACR_ICEN | FLASH_ACR_DCEN;
    wait_for(&FLASH_ACR, FLASH_ACR_LATENCY, FLASH_ACR_LATENCY_5WS);

    RCC_PLLCFGR = RCC_PLLCFGR_PLLSRC_MSI | RCC_PLLCFGR_PLLM_DIV1 | RCC_PLLCFGR_PLLN | RCC_PLLCFGR_PLLR_DIV2 |
                  RCC_PLLCFGR_PLLREN;
    RCC_CR |= RCC_CR_PLLON;
    wait_for(&RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY);
    RCC_CFGR |= RCC_CFGR_SW_PLL;
    wait_for(&RCC_CFGR, RCC_CFGR_SWS, RCC_CFGR_SWS_PLL);
    for (volatile uint32_t turn = 0; turn < 100; turn++) { /* more than 1 us: a turn takes several cycles of 1/60 us */
    }
    RCC_CFGR &= ~RCC_CFGR_HPRE;
}

void port_init(void)
{
    RCC_APB1ENR1 |= RCC_APB1ENR1_PWREN | RCC_APB1ENR1_TIM2EN;
    RCC_APB1ENR2 |= RCC_APB1ENR2_LPUART1EN;
    RCC_AHB2ENR |= 1u << LPUART1_TX_PIN / 16 | 1u << LPUART1_RX_PIN / 16 | 1u << TRIGGER_PIN / 16;
    (void)RCC_AHB2ENR;       /* two cycles pass before a peripheral answers (RM, peripheral clock enable) */
    PWR_CR2 |= PWR_CR2_IOSV; /* PG2 to PG15 are fed by VDDIO2 and cut off from it after reset (RM, independent I/O supply) */
    msi_trim();
    clocks_init();

    stm32_start(HIL_CLOCK_HZ, LPUART1_TX_PIN, LPUART1_RX_PIN, LPUART_BRR_VALUE);
}

void port_memory(int caches_on, uint32_t more_wait_states)
{
    uint32_t latency = FLASH_ACR_LATENCY_5WS + more_wait_states;
    FLASH_ACR = latency | FLASH_ACR_PRFTEN;
    wait_for(&FLASH_ACR, FLASH_ACR_LATENCY, latency);
    FLASH_ACR |= FLASH_ACR_ICRST | FLASH_ACR_DCRST;
    FLASH_ACR &= ~(FLASH_ACR_ICRST | FLASH_ACR_DCRST);
    if (caches_on != 0) {
        FLASH_ACR |= FLASH_ACR_ICEN | FLASH_ACR_DCEN;
    }
    cortex_m_sync();
}
