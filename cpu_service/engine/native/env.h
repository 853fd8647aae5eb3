/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A CPU's state as the replaced helpers see it; ../layout.py has proved the offsets that both use.
 */

#ifndef ENV_H
#define ENV_H

#include "native.h"

typedef void function(void);

/* A variable of each thread, without help from the dynamic linker. */
#define THREAD __thread __attribute__((tls_model("initial-exec")))

#define AT(type, base, offset) (*(type *)((u8 *)(base) + (offset)))

struct env;

enum { CPU_OF_ENV = -40384, EXCEPTION_INDEX = CPU_OF_ENV + 33184 };
#define CR_FIELD(env, field) AT(u32, env, 528 + 4 * (field))
#define MSR(env) AT(u64, env, 640)
#define FLOAT_STATUS(env) ((void *)&AT(u8, env, 77636))
#define ROUNDING(env) AT(s8, env, 77637)
#define FLOAT_FLAGS(env) AT(u8, env, 77638)
#define FLUSH_VECTOR_INPUTS(env) AT(u8, env, 77633)
#define FPSCR(env) AT(u64, env, 77648)
#define ERROR_CODE(env) AT(s32, env, 77728)

/* A vector register: elements are numbered from the left. */
struct vsr {
    u64 doubleword_1, doubleword_0;
};
#define DOUBLEWORD(vsr, number) (((u64 *)(vsr))[1 - (number)])
#define WORD(vsr, number) (((u32 *)(vsr))[3 - (number)])

#define BIT(number) (1UL << (number))
enum { FPSCR_XX = 25, FPSCR_XE = 3, FPSCR_FPCC = 12, VSCR_NJ = 16 };
#define FX BIT(31)
#define FEX BIT(30)
#define VX BIT(29)
#define OX BIT(28)
#define UX BIT(27)
#define ZX BIT(26)
#define XX BIT(25)
#define VXSNAN BIT(24)
#define VXVC BIT(19)
#define FR BIT(18)
#define FI BIT(17)
#define FPRF (0x1FUL << FPSCR_FPCC)
#define FPCC (0xFUL << FPSCR_FPCC)
#define VXSQRT BIT(9)
#define VXCVI BIT(8)
#define VE BIT(7)
#define OE BIT(6)
#define UE BIT(5)
#define ZE BIT(4)
#define XE BIT(3)
#define RN 3UL

/* Where a helper was called from in translated code; only in the helper itself. */
#define CALLER ((u64)__builtin_return_address(0) - 2)

/* Emitted next, in the place of any helper; 0 for none. */
extern THREAD function *substitute;
/* An instruction of single precision is being translated that multiplies and adds. */
extern THREAD int single_precision;

void check_enabled_exceptions(struct env *env);
int check_exit_in_line(void *context);
void helper_store_fpscr_ppc64(void);

#define FLOATING_POINT_REPLACEMENTS(name) \
    name(store_fpscr, helper_store_fpscr_ppc64) name(set_fpscr_bit, helper_fpscr_setbit_ppc64) \
    name(mtvscr, helper_mtvscr_ppc64) name(clear_fpscr_bit, helper_fpscr_clrbit_ppc64) \
    name(xscvspdpn, helper_xscvspdpn_ppc64) name(xscvdpsp, helper_xscvdpsp_ppc64) \
    name(compare_unordered, helper_xscmpudp_ppc64) name(compare_ordered, helper_xscmpodp_ppc64) \
    name(fre, helper_fre_ppc64) name(fres, helper_fres_ppc64) \
    name(fctiw, helper_fctiw_ppc64) name(fctiwz, helper_fctiwz_ppc64) \
    name(fctiwu, helper_fctiwu_ppc64) name(fctiwuz, helper_fctiwuz_ppc64) \
    name(fctid, helper_fctid_ppc64) name(fctidz, helper_fctidz_ppc64) \
    name(fctidu, helper_fctidu_ppc64) name(fctiduz, helper_fctiduz_ppc64) \
    name(xscvdpsxds, helper_xscvdpsxds_ppc64) name(xscvdpsxws, helper_xscvdpsxws_ppc64) \
    name(xscvdpuxds, helper_xscvdpuxds_ppc64) name(xscvdpuxws, helper_xscvdpuxws_ppc64) \
    name(xvcvdpsxds, helper_xvcvdpsxds_ppc64) name(xvcvdpsxws, helper_xvcvdpsxws_ppc64) \
    name(xvcvdpuxds, helper_xvcvdpuxds_ppc64) name(xvcvdpuxws, helper_xvcvdpuxws_ppc64) \
    name(xvcvspsxds, helper_xvcvspsxds_ppc64) name(xvcvspsxws, helper_xvcvspsxws_ppc64) \
    name(xvcvspuxds, helper_xvcvspuxds_ppc64) name(xvcvspuxws, helper_xvcvspuxws_ppc64)

/* Vectors: these leave FI, FR and FPRF as they are. */
#define FI_REPLACEMENTS(name) \
    name(keep_fi_xvadddp, helper_xvadddp_ppc64) name(keep_fi_xvaddsp, helper_xvaddsp_ppc64) \
    name(keep_fi_xvcmpeqdp, helper_xvcmpeqdp_ppc64) name(keep_fi_xvcmpeqsp, helper_xvcmpeqsp_ppc64) \
    name(keep_fi_xvcmpgedp, helper_xvcmpgedp_ppc64) name(keep_fi_xvcmpgesp, helper_xvcmpgesp_ppc64) \
    name(keep_fi_xvcmpgtdp, helper_xvcmpgtdp_ppc64) name(keep_fi_xvcmpgtsp, helper_xvcmpgtsp_ppc64) \
    name(keep_fi_xvcvspdp, helper_xvcvspdp_ppc64) name(keep_fi_xvcvsxddp, helper_xvcvsxddp_ppc64) \
    name(keep_fi_xvcvsxwdp, helper_xvcvsxwdp_ppc64) name(keep_fi_xvcvsxwsp, helper_xvcvsxwsp_ppc64) \
    name(keep_fi_xvcvuxddp, helper_xvcvuxddp_ppc64) name(keep_fi_xvcvuxwdp, helper_xvcvuxwdp_ppc64) \
    name(keep_fi_xvcvuxwsp, helper_xvcvuxwsp_ppc64) name(keep_fi_xvdivdp, helper_xvdivdp_ppc64) \
    name(keep_fi_xvdivsp, helper_xvdivsp_ppc64) name(keep_fi_xvmadddp, helper_xvmadddp_ppc64) \
    name(keep_fi_xvmaddsp, helper_xvmaddsp_ppc64) name(keep_fi_xvmaxdp, helper_xvmaxdp_ppc64) \
    name(keep_fi_xvmaxsp, helper_xvmaxsp_ppc64) name(keep_fi_xvmindp, helper_xvmindp_ppc64) \
    name(keep_fi_xvminsp, helper_xvminsp_ppc64) name(keep_fi_xvmsubdp, helper_xvmsubdp_ppc64) \
    name(keep_fi_xvmsubsp, helper_xvmsubsp_ppc64) name(keep_fi_xvmuldp, helper_xvmuldp_ppc64) \
    name(keep_fi_xvmulsp, helper_xvmulsp_ppc64) name(keep_fi_xvnmadddp, helper_xvnmadddp_ppc64) \
    name(keep_fi_xvnmaddsp, helper_xvnmaddsp_ppc64) name(keep_fi_xvnmsubdp, helper_xvnmsubdp_ppc64) \
    name(keep_fi_xvnmsubsp, helper_xvnmsubsp_ppc64) name(keep_fi_xvrdpi, helper_xvrdpi_ppc64) \
    name(keep_fi_xvrdpic, helper_xvrdpic_ppc64) name(keep_fi_xvrdpim, helper_xvrdpim_ppc64) \
    name(keep_fi_xvrdpip, helper_xvrdpip_ppc64) name(keep_fi_xvrdpiz, helper_xvrdpiz_ppc64) \
    name(keep_fi_xvredp, helper_xvredp_ppc64) name(keep_fi_xvresp, helper_xvresp_ppc64) \
    name(keep_fi_xvrspi, helper_xvrspi_ppc64) name(keep_fi_xvrspic, helper_xvrspic_ppc64) \
    name(keep_fi_xvrspim, helper_xvrspim_ppc64) name(keep_fi_xvrspip, helper_xvrspip_ppc64) \
    name(keep_fi_xvrspiz, helper_xvrspiz_ppc64)  \
     name(keep_fi_xvsubdp, helper_xvsubdp_ppc64) \
    name(keep_fi_xvsubsp, helper_xvsubsp_ppc64)


/* Scalars that leave FI and FR as they are. */
#define SCALAR_REPLACEMENTS(name) \
    name(scalar_fcmpu, helper_fcmpu_ppc64) name(scalar_fcmpo, helper_fcmpo_ppc64) \
    name(scalar_xsmaxdp, helper_xsmaxdp_ppc64) name(scalar_xsmindp, helper_xsmindp_ppc64)

/* Square roots, and their reciprocals. */
#define ROOT_REPLACEMENTS(name) \
    name(root_xssqrtdp, helper_xssqrtdp_ppc64) name(root_xssqrtsp, helper_xssqrtsp_ppc64) \
    name(root_xsrsqrtedp, helper_xsrsqrtedp_ppc64) name(root_xsrsqrtesp, helper_xsrsqrtesp_ppc64) \
    name(root_xvsqrtdp, helper_xvsqrtdp_ppc64) name(root_xvsqrtsp, helper_xvsqrtsp_ppc64) \
    name(root_xvrsqrtedp, helper_xvrsqrtedp_ppc64) name(root_xvrsqrtesp, helper_xvrsqrtesp_ppc64)

/* Vectors again, whose results are of two words each. */
#define WORDS_REPLACEMENTS(name) \
    name(twice_xvcvsxdsp, helper_xvcvsxdsp_ppc64) name(twice_xvcvuxdsp, helper_xvcvuxdsp_ppc64) \
    name(twice_xvcvdpsp, helper_xvcvdpsp_ppc64)

#define DECIMAL_REPLACEMENTS(name) \
    name(dadd, helper_dadd) name(daddq, helper_daddq) name(dsub, helper_dsub) \
    name(dsubq, helper_dsubq) name(dmul, helper_dmul) name(dmulq, helper_dmulq) \
    name(ddiv, helper_ddiv) name(ddivq, helper_ddivq) name(dcmpo, helper_dcmpo) \
    name(dcmpoq, helper_dcmpoq) name(dcmpu, helper_dcmpu) name(dcmpuq, helper_dcmpuq) \
    name(dtstdc, helper_dtstdc) name(dtstdcq, helper_dtstdcq) name(dtstdg, helper_dtstdg) \
    name(dtstdgq, helper_dtstdgq) name(dtstex, helper_dtstex) name(dtstexq, helper_dtstexq) \
    name(dtstsf, helper_dtstsf) name(dtstsfq, helper_dtstsfq) name(dquai, helper_dquai) \
    name(dquaiq, helper_dquaiq) name(dqua, helper_dqua) name(dquaq, helper_dquaq) \
    name(drrnd, helper_drrnd) name(drrndq, helper_drrndq) name(drintx, helper_drintx) \
    name(drintxq, helper_drintxq) name(drintn, helper_drintn) name(drintnq, helper_drintnq) \
    name(dctdp, helper_dctdp) name(dctqpq, helper_dctqpq) name(drsp, helper_drsp) \
    name(drdpq, helper_drdpq) name(dcffix, helper_dcffix) name(dcffixq, helper_dcffixq) \
    name(dctfix, helper_dctfix) name(dctfixq, helper_dctfixq) name(ddedpd, helper_ddedpd) \
    name(ddedpdq, helper_ddedpdq) \
    name(dxex, helper_dxex) name(dxexq, helper_dxexq) name(diex, helper_diex) \
    name(diexq, helper_diexq) name(dscli, helper_dscli) name(dscliq, helper_dscliq) \
    name(dscri, helper_dscri) name(dscriq, helper_dscriq)

/* Only in instructions of single precision; see single_sum(). */
#define SUM_REPLACEMENTS(name) \
    name(single_fmadd, helper_fmadd_ppc64) name(single_fmsub, helper_fmsub_ppc64) \
    name(single_fnmadd, helper_fnmadd_ppc64) name(single_fnmsub, helper_fnmsub_ppc64)

#define BCD_REPLACEMENTS(name) name(denbcd, helper_denbcd) name(denbcdq, helper_denbcdq)

#define REGISTER_REPLACEMENTS(name) name(write_decrementer, helper_store_hdecr_ppc64) name(raise_or_go_on, helper_raise_exception_ppc64)

#endif
