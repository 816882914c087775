/* From instructions as Zydis tells them to struct evex_insn, and into the code of a block. */
#include "worker/evex.h"

#include "worker/maker.h"

/* --- what computes each instruction --- */

struct rule {
    uint16_t mnemonic;
    uint8_t how;  /* enum how */
    uint8_t what; /* for that */
};

// clang-format off
enum how {
    NOT, /* not emulated */
    NATIVE, FLOAT, LANES, /* FLOAT: rounds or raises exceptions; LANES: for 16 bytes at a time */
    FLOAT_SCALAR, COMPARE_NATIVE, COMPARE_FLOAT, FLAGS_FLOAT, ROUND, ROUND_SCALAR,
    MOVE, BLEND, TERNARY, ELEMENTS, COMPARE, TEST, BROADCAST, PERMUTE, PERMUTE_TWO, SHUFFLE_LANES, SHUFFLE_PAIRS, ALIGN, INSERT, EXTRACT,
    EXTRACT_ELEMENT, INSERT_ELEMENT, MOVE_LOW, MOVE_HALF, NARROW, MASK_TO_VECTOR, VECTOR_TO_MASK, BROADCAST_MASK, COMPRESS, EXPAND,
    CONVERT, CONVERT_SCALAR, CLASSIFY, CLASSIFY_SCALAR, CONFLICT, DOUBLE_SAD, SHUFFLE_BITS, GATHER, SCATTER, MASK_OP, SAVE, RESTORE,
    PARTS, PARTS_SCALAR, GALOIS, TO_BF16, DOT_BF16, INTERSECT,
    HOW_COUNT
};
// clang-format on

// clang-format off
static evex_operation *const operations[HOW_COUNT] = {
    [NATIVE] = evex_native, [FLOAT] = evex_native, [LANES] = evex_native, [FLOAT_SCALAR] = evex_native_scalar, [COMPARE_NATIVE] = evex_native_compare, [COMPARE_FLOAT] = evex_native_compare,
    [FLAGS_FLOAT] = evex_native_flags, [ROUND] = evex_native, [ROUND_SCALAR] = evex_native_scalar, [MOVE] = evex_move,
    [BLEND] = evex_blend, [TERNARY] = evex_ternary, [ELEMENTS] = evex_elements, [COMPARE] = evex_compare, [TEST] = evex_test,
    [BROADCAST] = evex_broadcast, [PERMUTE] = evex_permute, [PERMUTE_TWO] = evex_permute_two, [SHUFFLE_LANES] = evex_shuffle_lanes,
    [SHUFFLE_PAIRS] = evex_shuffle_pairs, [ALIGN] = evex_align, [INSERT] = evex_insert, [EXTRACT] = evex_extract, [EXTRACT_ELEMENT] = evex_extract_element,
    [INSERT_ELEMENT] = evex_insert_element, [MOVE_LOW] = evex_move_low, [MOVE_HALF] = evex_move_half, [NARROW] = evex_narrow,
    [MASK_TO_VECTOR] = evex_mask_to_vector, [VECTOR_TO_MASK] = evex_vector_to_mask, [BROADCAST_MASK] = evex_broadcast_mask,
    [CONVERT] = evex_convert, [CONVERT_SCALAR] = evex_convert, [CLASSIFY] = evex_classify, [CLASSIFY_SCALAR] = evex_classify,
    [COMPRESS] = evex_compress, [EXPAND] = evex_expand, [CONFLICT] = evex_conflict, [DOUBLE_SAD] = evex_double_sad,
    [SHUFFLE_BITS] = evex_shuffle_bits, [GATHER] = evex_gather, [SCATTER] = evex_scatter, [MASK_OP] = evex_mask_op,
    [PARTS] = evex_parts, [PARTS_SCALAR] = evex_parts, [GALOIS] = evex_galois, [TO_BF16] = evex_to_bf16, [DOT_BF16] = evex_dot_bf16,
    [INTERSECT] = evex_intersect, [SAVE] = evex_save_state, [RESTORE] = evex_restore_state,
};
// clang-format on

// clang-format off
static const struct rule rules[] = {
#define M(name) ZYDIS_MNEMONIC_##name
#define PS_PD(name, ...) {M(name##PS), __VA_ARGS__}, {M(name##PD), __VA_ARGS__}
#define SS_SD(name, ...) {M(name##SS), __VA_ARGS__}, {M(name##SD), __VA_ARGS__}
#define D_Q(name, ...) {M(name##D), __VA_ARGS__}, {M(name##Q), __VA_ARGS__}
#define B_W(name, ...) {M(name##B), __VA_ARGS__}, {M(name##W), __VA_ARGS__}
#define B_W_D_Q(name, ...) B_W(name, __VA_ARGS__), D_Q(name, __VA_ARGS__)
#define B_W_D(name, ...) B_W(name, __VA_ARGS__), {M(name##D), __VA_ARGS__}
#define W_D_Q(name, ...) {M(name##W), __VA_ARGS__}, D_Q(name, __VA_ARGS__)
    // Integers and shuffles that VEX has, too
    B_W_D_Q(VPADD, NATIVE, 0), B_W_D_Q(VPSUB, NATIVE, 0), B_W(VPADDS, NATIVE, 0), B_W(VPADDUS, NATIVE, 0), B_W(VPSUBS, NATIVE, 0),
    B_W(VPSUBUS, NATIVE, 0), B_W(VPAVG, NATIVE, 0), B_W_D(VPABS, NATIVE, 0), B_W_D(VPMINS, NATIVE, 0), B_W_D(VPMINU, NATIVE, 0),
    B_W_D(VPMAXS, NATIVE, 0), B_W_D(VPMAXU, NATIVE, 0), D_Q(VPAND, NATIVE, 0), D_Q(VPANDN, NATIVE, 0), D_Q(VPOR, NATIVE, 0),
    D_Q(VPXOR, NATIVE, 0), PS_PD(VAND, NATIVE, 0), PS_PD(VANDN, NATIVE, 0), PS_PD(VOR, NATIVE, 0), PS_PD(VXOR, NATIVE, 0),
    {M(VPMULLW), NATIVE, 0}, {M(VPMULLD), NATIVE, 0}, {M(VPMULHW), NATIVE, 0}, {M(VPMULHUW), NATIVE, 0}, {M(VPMULHRSW), NATIVE, 0},
    {M(VPMULDQ), NATIVE, 0}, {M(VPMULUDQ), NATIVE, 0}, {M(VPMADDWD), NATIVE, 0}, {M(VPMADDUBSW), NATIVE, 0}, {M(VPSADBW), NATIVE, 0},
    W_D_Q(VPSLL, NATIVE, 0), W_D_Q(VPSRL, NATIVE, 0), {M(VPSRAW), NATIVE, 0}, {M(VPSRAD), NATIVE, 0}, D_Q(VPSLLV, NATIVE, 0),
    D_Q(VPSRLV, NATIVE, 0), {M(VPSRAVD), NATIVE, 0}, {M(VPSLLDQ), NATIVE, 0}, {M(VPSRLDQ), NATIVE, 0},
    {M(VPACKSSWB), NATIVE, 0}, {M(VPACKSSDW), NATIVE, 0}, {M(VPACKUSWB), NATIVE, 0}, {M(VPACKUSDW), NATIVE, 0},
    {M(VPUNPCKLBW), NATIVE, 0}, {M(VPUNPCKLWD), NATIVE, 0}, {M(VPUNPCKLDQ), NATIVE, 0}, {M(VPUNPCKLQDQ), NATIVE, 0},
    {M(VPUNPCKHBW), NATIVE, 0}, {M(VPUNPCKHWD), NATIVE, 0}, {M(VPUNPCKHDQ), NATIVE, 0}, {M(VPUNPCKHQDQ), NATIVE, 0},
    PS_PD(VUNPCKL, NATIVE, 0), PS_PD(VUNPCKH, NATIVE, 0), {M(VSHUFPS), NATIVE, 0}, {M(VSHUFPD), SHUFFLE_PAIRS, 0}, PS_PD(VPERMIL, NATIVE, 0),
    {M(VPSHUFB), NATIVE, 0}, {M(VPSHUFD), NATIVE, 0}, {M(VPSHUFHW), NATIVE, 0}, {M(VPSHUFLW), NATIVE, 0}, {M(VPALIGNR), NATIVE, 0},
    {M(VMOVDDUP), NATIVE, 0}, {M(VMOVSHDUP), NATIVE, 0}, {M(VMOVSLDUP), NATIVE, 0}, {M(VINSERTPS), NATIVE, 0},
    {M(VPMOVSXBW), NATIVE, 0}, {M(VPMOVSXBD), NATIVE, 0}, {M(VPMOVSXBQ), NATIVE, 0}, {M(VPMOVSXWD), NATIVE, 0},
    {M(VPMOVSXWQ), NATIVE, 0}, {M(VPMOVSXDQ), NATIVE, 0}, {M(VPMOVZXBW), NATIVE, 0}, {M(VPMOVZXBD), NATIVE, 0},
    {M(VPMOVZXBQ), NATIVE, 0}, {M(VPMOVZXWD), NATIVE, 0}, {M(VPMOVZXWQ), NATIVE, 0}, {M(VPMOVZXDQ), NATIVE, 0},
    {M(VAESENC), LANES, 0}, {M(VAESENCLAST), LANES, 0}, {M(VAESDEC), LANES, 0}, {M(VAESDECLAST), LANES, 0}, {M(VPCLMULQDQ), LANES, 0},
    B_W_D_Q(VPCMPEQ, COMPARE_NATIVE, 0), B_W_D_Q(VPCMPGT, COMPARE_NATIVE, 0),
    // Floating point that VEX has, too
    PS_PD(VADD, FLOAT, 0), PS_PD(VSUB, FLOAT, 0), PS_PD(VMUL, FLOAT, 0), PS_PD(VDIV, FLOAT, 0), PS_PD(VMIN, FLOAT, 0),
    PS_PD(VMAX, FLOAT, 0), PS_PD(VSQRT, FLOAT, 0), PS_PD(VCMP, COMPARE_FLOAT, 0), PS_PD(VRNDSCALE, ROUND, 0),
    SS_SD(VADD, FLOAT_SCALAR, 0), SS_SD(VSUB, FLOAT_SCALAR, 0), SS_SD(VMUL, FLOAT_SCALAR, 0), SS_SD(VDIV, FLOAT_SCALAR, 0),
    SS_SD(VMIN, FLOAT_SCALAR, 0), SS_SD(VMAX, FLOAT_SCALAR, 0), SS_SD(VSQRT, FLOAT_SCALAR, 0), SS_SD(VCMP, COMPARE_FLOAT, 0),
    SS_SD(VRNDSCALE, ROUND_SCALAR, 0), {M(VCVTSS2SD), FLOAT_SCALAR, 0}, {M(VCVTSD2SS), FLOAT_SCALAR, 0},
    SS_SD(VCOMI, FLAGS_FLOAT, 0), SS_SD(VUCOMI, FLAGS_FLOAT, 0),
#define FMA(name) \
    PS_PD(name##132, FLOAT, 0), PS_PD(name##213, FLOAT, 0), PS_PD(name##231, FLOAT, 0)
#define FMA_SCALAR(name) \
    SS_SD(name##132, FLOAT_SCALAR, EVEX_KEEPS_UPPER), SS_SD(name##213, FLOAT_SCALAR, EVEX_KEEPS_UPPER), \
        SS_SD(name##231, FLOAT_SCALAR, EVEX_KEEPS_UPPER)
    FMA(VFMADD), FMA(VFMSUB), FMA(VFNMADD), FMA(VFNMSUB), FMA(VFMADDSUB), FMA(VFMSUBADD), FMA_SCALAR(VFMADD), FMA_SCALAR(VFMSUB),
    FMA_SCALAR(VFNMADD), FMA_SCALAR(VFNMSUB),
    {M(VCVTDQ2PD), FLOAT, 0}, {M(VCVTDQ2PS), FLOAT, 0}, {M(VCVTPD2DQ), FLOAT, 0}, {M(VCVTPD2PS), FLOAT, 0}, {M(VCVTPS2DQ), FLOAT, 0},
    {M(VCVTPS2PD), FLOAT, 0}, {M(VCVTTPD2DQ), FLOAT, 0}, {M(VCVTTPS2DQ), FLOAT, 0}, {M(VCVTPH2PS), FLOAT, 0}, {M(VCVTPS2PH), FLOAT, 0},
    {M(VCVTSI2SS), FLOAT_SCALAR, 0}, {M(VCVTSI2SD), FLOAT_SCALAR, 0}, {M(VCVTSS2SI), FLAGS_FLOAT, 0}, {M(VCVTSD2SI), FLAGS_FLOAT, 0},
    {M(VCVTTSS2SI), FLAGS_FLOAT, 0}, {M(VCVTTSD2SI), FLAGS_FLOAT, 0},
    // Moves
    {M(VMOVDQA32), MOVE, 0}, {M(VMOVDQA64), MOVE, 0}, {M(VMOVDQU8), MOVE, 0}, {M(VMOVDQU16), MOVE, 0}, {M(VMOVDQU32), MOVE, 0},
    {M(VMOVDQU64), MOVE, 0}, PS_PD(VMOVA, MOVE, 0), PS_PD(VMOVU, MOVE, 0), PS_PD(VMOVNT, MOVE, 0), {M(VMOVNTDQ), MOVE, 0},
    {M(VMOVNTDQA), MOVE, 0}, {M(VMOVD), MOVE_LOW, 0}, {M(VMOVQ), MOVE_LOW, 0}, SS_SD(VMOV, MOVE_LOW, 0),
    {M(VMOVLPS), MOVE_HALF, EVEX_LOW_HALF}, {M(VMOVLPD), MOVE_HALF, EVEX_LOW_HALF}, {M(VMOVHPS), MOVE_HALF, EVEX_HIGH_HALF},
    {M(VMOVHPD), MOVE_HALF, EVEX_HIGH_HALF}, {M(VMOVHLPS), MOVE_HALF, EVEX_HIGH_TO_LOW}, {M(VMOVLHPS), MOVE_HALF, EVEX_HIGH_HALF},
    {M(VPEXTRB), EXTRACT_ELEMENT, 0}, {M(VPEXTRW), EXTRACT_ELEMENT, 0}, {M(VPEXTRD), EXTRACT_ELEMENT, 0},
    {M(VPEXTRQ), EXTRACT_ELEMENT, 0}, {M(VEXTRACTPS), EXTRACT_ELEMENT, 0}, {M(VPINSRB), INSERT_ELEMENT, 0},
    {M(VPINSRW), INSERT_ELEMENT, 0}, {M(VPINSRD), INSERT_ELEMENT, 0}, {M(VPINSRQ), INSERT_ELEMENT, 0},
    {M(VBROADCASTSS), BROADCAST, 0}, {M(VBROADCASTSD), BROADCAST, 0}, B_W_D_Q(VPBROADCAST, BROADCAST, 0),
    {M(VBROADCASTF32X2), BROADCAST, 8}, {M(VBROADCASTI32X2), BROADCAST, 8}, {M(VBROADCASTF32X4), BROADCAST, 16},
    {M(VBROADCASTI32X4), BROADCAST, 16}, {M(VBROADCASTF64X2), BROADCAST, 16}, {M(VBROADCASTI64X2), BROADCAST, 16},
    {M(VBROADCASTF32X8), BROADCAST, 32}, {M(VBROADCASTI32X8), BROADCAST, 32}, {M(VBROADCASTF64X4), BROADCAST, 32},
    {M(VBROADCASTI64X4), BROADCAST, 32},
#define QUARTERS(name, how) \
    {M(name##F32X4), how, 0}, {M(name##F32X8), how, 0}, {M(name##F64X2), how, 0}, {M(name##F64X4), how, 0}, \
    {M(name##I32X4), how, 0}, {M(name##I32X8), how, 0}, {M(name##I64X2), how, 0}, {M(name##I64X4), how, 0}
    QUARTERS(VINSERT, INSERT), QUARTERS(VEXTRACT, EXTRACT),
    // Only in AVX-512
    B_W_D_Q(VPBLENDM, BLEND, 0), PS_PD(VBLENDM, BLEND, 0), D_Q(VPTERNLOG, TERNARY, 0),
    B_W_D_Q(VPCMP, COMPARE, EVEX_SIGNED), B_W_D_Q(VPCMPU, COMPARE, 0), B_W_D_Q(VPTESTM, TEST, 0), B_W_D_Q(VPTESTNM, TEST, EVEX_NOT),
    {M(VPMINSQ), ELEMENTS, EVEX_MIN_SIGNED}, {M(VPMAXSQ), ELEMENTS, EVEX_MAX_SIGNED}, {M(VPMINUQ), ELEMENTS, EVEX_MIN},
    {M(VPMAXUQ), ELEMENTS, EVEX_MAX}, {M(VPABSQ), ELEMENTS, EVEX_ABS}, {M(VPMULLQ), ELEMENTS, EVEX_MULTIPLY},
    {M(VPSRAQ), ELEMENTS, EVEX_SRA_ALL}, {M(VPSRAVW), ELEMENTS, EVEX_SRA}, {M(VPSRAVQ), ELEMENTS, EVEX_SRA},
    {M(VPSLLVW), ELEMENTS, EVEX_SLL}, {M(VPSRLVW), ELEMENTS, EVEX_SRL}, D_Q(VPROL, ELEMENTS, EVEX_ROL_IMM),
    D_Q(VPROR, ELEMENTS, EVEX_ROR_IMM), D_Q(VPROLV, ELEMENTS, EVEX_ROL), D_Q(VPRORV, ELEMENTS, EVEX_ROR),
    D_Q(VPLZCNT, ELEMENTS, EVEX_LEADING_ZEROS), B_W_D_Q(VPOPCNT, ELEMENTS, EVEX_POPULATION),
    W_D_Q(VPSHLD, ELEMENTS, EVEX_SHLD_IMM), W_D_Q(VPSHRD, ELEMENTS, EVEX_SHRD_IMM), W_D_Q(VPSHLDV, ELEMENTS, EVEX_SHLD),
    W_D_Q(VPSHRDV, ELEMENTS, EVEX_SHRD), {M(VPMADD52LUQ), ELEMENTS, EVEX_MADD52_LOW}, {M(VPMADD52HUQ), ELEMENTS, EVEX_MADD52_HIGH},
    {M(VPDPBUSD), ELEMENTS, EVEX_DOT_BYTES}, {M(VPDPBUSDS), ELEMENTS, EVEX_DOT_BYTES_SATURATED},
    {M(VPDPWSSD), ELEMENTS, EVEX_DOT_WORDS}, {M(VPDPWSSDS), ELEMENTS, EVEX_DOT_WORDS_SATURATED},
    {M(VPERMB), PERMUTE, 0}, {M(VPERMW), PERMUTE, 0}, D_Q(VPERM, PERMUTE, 0), PS_PD(VPERM, PERMUTE, 0),
    B_W_D_Q(VPERMT2, PERMUTE_TWO, 0), PS_PD(VPERMT2, PERMUTE_TWO, 0), B_W_D_Q(VPERMI2, PERMUTE_TWO, EVEX_INDEX_FIRST),
    PS_PD(VPERMI2, PERMUTE_TWO, EVEX_INDEX_FIRST), {M(VSHUFF32X4), SHUFFLE_LANES, 0}, {M(VSHUFF64X2), SHUFFLE_LANES, 0},
    {M(VSHUFI32X4), SHUFFLE_LANES, 0}, {M(VSHUFI64X2), SHUFFLE_LANES, 0}, D_Q(VALIGN, ALIGN, 0),
#define NARROWED(suffix) \
    {M(VPMOV##suffix), NARROW, EVEX_TRUNCATED}, {M(VPMOVS##suffix), NARROW, EVEX_SIGNED}, {M(VPMOVUS##suffix), NARROW, EVEX_UNSIGNED}
    NARROWED(WB), NARROWED(DB), NARROWED(DW), NARROWED(QB), NARROWED(QW), NARROWED(QD), B_W_D_Q(VPMOVM2, MASK_TO_VECTOR, 0),
    {M(VPMOVB2M), VECTOR_TO_MASK, 0}, {M(VPMOVW2M), VECTOR_TO_MASK, 0}, {M(VPMOVD2M), VECTOR_TO_MASK, 0},
    {M(VPMOVQ2M), VECTOR_TO_MASK, 0}, {M(VPBROADCASTMB2Q), BROADCAST_MASK, 1}, {M(VPBROADCASTMW2D), BROADCAST_MASK, 2},
    B_W_D_Q(VPCOMPRESS, COMPRESS, 0), PS_PD(VCOMPRESS, COMPRESS, 0), B_W_D_Q(VPEXPAND, EXPAND, 0), PS_PD(VEXPAND, EXPAND, 0),
    D_Q(VPCONFLICT, CONFLICT, 0), {M(VDBPSADBW), DOUBLE_SAD, 0}, {M(VPSHUFBITQMB), SHUFFLE_BITS, 0},
    {M(VPMULTISHIFTQB), SHUFFLE_BITS, EVEX_WHOLE_BYTES},
    PS_PD(VGATHERD, GATHER, 4), PS_PD(VGATHERQ, GATHER, 8), D_Q(VPGATHERD, GATHER, 4), D_Q(VPGATHERQ, GATHER, 8),
    PS_PD(VSCATTERD, SCATTER, 4), PS_PD(VSCATTERQ, SCATTER, 8), D_Q(VPSCATTERD, SCATTER, 4), D_Q(VPSCATTERQ, SCATTER, 8),
#define TO_INTEGER(name, what) \
    {M(VCVT##name), CONVERT, EVEX_CONVERT_TO_INTEGER | (what)}, \
        {M(VCVTT##name), CONVERT, EVEX_CONVERT_TO_INTEGER | EVEX_CONVERT_TRUNCATES | (what)}
    TO_INTEGER(PS2UDQ, 0), TO_INTEGER(PD2UDQ, 0), TO_INTEGER(PS2UQQ, 0), TO_INTEGER(PD2UQQ, 0),
    TO_INTEGER(PS2QQ, EVEX_CONVERT_SIGNED), TO_INTEGER(PD2QQ, EVEX_CONVERT_SIGNED),
    {M(VCVTUDQ2PS), CONVERT, 0}, {M(VCVTUDQ2PD), CONVERT, 0}, {M(VCVTUQQ2PS), CONVERT, 0}, {M(VCVTUQQ2PD), CONVERT, 0},
    {M(VCVTQQ2PS), CONVERT, EVEX_CONVERT_SIGNED}, {M(VCVTQQ2PD), CONVERT, EVEX_CONVERT_SIGNED},
    {M(VCVTUSI2SS), CONVERT_SCALAR, 0}, {M(VCVTUSI2SD), CONVERT_SCALAR, 0},
    {M(VCVTSS2USI), CONVERT_SCALAR, EVEX_CONVERT_TO_INTEGER}, {M(VCVTSD2USI), CONVERT_SCALAR, EVEX_CONVERT_TO_INTEGER},
    {M(VCVTTSS2USI), CONVERT_SCALAR, EVEX_CONVERT_TO_INTEGER | EVEX_CONVERT_TRUNCATES},
    {M(VCVTTSD2USI), CONVERT_SCALAR, EVEX_CONVERT_TO_INTEGER | EVEX_CONVERT_TRUNCATES},
    PS_PD(VFPCLASS, CLASSIFY, 0), SS_SD(VFPCLASS, CLASSIFY_SCALAR, 0),
    PS_PD(VGETEXP, PARTS, EVEX_GET_EXPONENT), SS_SD(VGETEXP, PARTS_SCALAR, EVEX_GET_EXPONENT),
    PS_PD(VGETMANT, PARTS, EVEX_GET_MANTISSA), SS_SD(VGETMANT, PARTS_SCALAR, EVEX_GET_MANTISSA),
    PS_PD(VREDUCE, PARTS, EVEX_REDUCE), SS_SD(VREDUCE, PARTS_SCALAR, EVEX_REDUCE),
    PS_PD(VSCALEF, PARTS, EVEX_SCALE), SS_SD(VSCALEF, PARTS_SCALAR, EVEX_SCALE),
    PS_PD(VRANGE, PARTS, EVEX_RANGE), SS_SD(VRANGE, PARTS_SCALAR, EVEX_RANGE),
    PS_PD(VFIXUPIMM, PARTS, EVEX_FIX_UP), SS_SD(VFIXUPIMM, PARTS_SCALAR, EVEX_FIX_UP),
    {M(VGF2P8MULB), GALOIS, EVEX_GALOIS_MULTIPLY}, {M(VGF2P8AFFINEQB), GALOIS, EVEX_GALOIS_AFFINE},
    {M(VGF2P8AFFINEINVQB), GALOIS, EVEX_GALOIS_AFFINE_INVERSE},
    {M(VCVTNEPS2BF16), TO_BF16, 0}, {M(VCVTNE2PS2BF16), TO_BF16, 0}, {M(VDPBF16PS), DOT_BF16, 0}, D_Q(VP2INTERSECT, INTERSECT, 0),
    // Opmasks
#define MASKS(name, op) \
    {M(name##B), MASK_OP, EVEX_MASK_OP(op, 1)}, {M(name##W), MASK_OP, EVEX_MASK_OP(op, 2)}, {M(name##D), MASK_OP, EVEX_MASK_OP(op, 4)}, \
    {M(name##Q), MASK_OP, EVEX_MASK_OP(op, 8)}
    MASKS(KAND, EVEX_K_AND), MASKS(KANDN, EVEX_K_ANDN), MASKS(KOR, EVEX_K_OR), MASKS(KXOR, EVEX_K_XOR), MASKS(KXNOR, EVEX_K_XNOR),
    MASKS(KNOT, EVEX_K_NOT), MASKS(KADD, EVEX_K_ADD), MASKS(KSHIFTL, EVEX_K_SHIFTL), MASKS(KSHIFTR, EVEX_K_SHIFTR),
    MASKS(KMOV, EVEX_K_MOV), MASKS(KORTEST, EVEX_K_ORTEST), MASKS(KTEST, EVEX_K_TEST),
    {M(KUNPCKBW), MASK_OP, EVEX_MASK_OP(EVEX_K_UNPACK, 2)}, {M(KUNPCKWD), MASK_OP, EVEX_MASK_OP(EVEX_K_UNPACK, 4)},
    {M(KUNPCKDQ), MASK_OP, EVEX_MASK_OP(EVEX_K_UNPACK, 8)},
    // States
    {M(XSAVE), SAVE, EVEX_XSAVE}, {M(XSAVE64), SAVE, EVEX_XSAVE}, {M(XSAVEOPT), SAVE, EVEX_XSAVEOPT}, {M(XSAVEOPT64), SAVE, EVEX_XSAVEOPT},
    {M(XSAVEC), SAVE, EVEX_XSAVEC}, {M(XSAVEC64), SAVE, EVEX_XSAVEC}, {M(XRSTOR), RESTORE, 0}, {M(XRSTOR64), RESTORE, 0},
#undef M
};
// clang-format on

static const struct rule *find_rule(ZydisMnemonic mnemonic)
{
    static uint16_t idx_of[ZYDIS_MNEMONIC_MAX_VALUE + 1]; // + 1; made at the first use
    if (!idx_of[rules[0].mnemonic]) {
        for (uint16_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
            idx_of[rules[i].mnemonic] = (uint16_t)(i + 1);
    }
    return idx_of[mnemonic] ? &rules[idx_of[mnemonic] - 1] : NULL;
}

static bool names_mask(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(in->op[i].reg.value) == ZYDIS_REGCLASS_MASK)
            return true;
    }
    return false;
}

bool evex_concerns(const struct insn *in)
{
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return true;
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return names_mask(in);
    return evex_saves_state(in);
}

bool evex_saves_state(const struct insn *in)
{
    return in->z.meta.category == ZYDIS_CATEGORY_XSAVE ||
           in->z.meta.category == ZYDIS_CATEGORY_XSAVEOPT;
}

/* --- operands --- */

static struct evex_operand operand_of(const ZydisDecodedOperand *op)
{
    struct evex_operand out = {.len = (uint8_t)(op->size / 8),
                               .element = (uint8_t)(op->element_size / 8)};
    if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        out.kind = EVEX_MEMORY;
        return out;
    }
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
        out.kind = EVEX_VECTOR;
        out.number = (uint8_t)ZydisRegisterGetId(op->reg.value);
        if (out.len < 16) // a part of it is meant
            out.len = 16;
        break;
    case ZYDIS_REGCLASS_MASK:
        out.kind = EVEX_MASK;
        out.number = (uint8_t)ZydisRegisterGetId(op->reg.value);
        out.len = out.element = 8;
        break;
    default:
        out.kind = EVEX_GENERAL;
        out.number = (uint8_t)gpr_number(op->reg.value);
        out.element = out.len;
    }
    return out;
}

static void set_address(const struct insn *in, const ZydisDecodedOperand *op, struct evex_insn *out)
{
    out->base = (uint8_t)gpr_number(op->mem.base);
    out->index = (uint8_t)gpr_number(op->mem.index);
    if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
        out->index = (uint8_t)ZydisRegisterGetId(op->mem.index);
    out->scale = op->mem.scale;
    out->displacement = (uint64_t)displacement(op);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
        out->displacement = rip_address(in, op);
    out->segment = op->mem.segment == ZYDIS_REGISTER_FS   ? 1
                   : op->mem.segment == ZYDIS_REGISTER_GS ? 2
                                                          : 0;
    out->in_stack = op->mem.segment == ZYDIS_REGISTER_SS;
    out->narrow_address = in->z.address_width == 32;
}

/* Fills in the operands: the first one that is named is the destination, or, where only flags or
 * nothing is written, a source. */
static void set_operands(const struct insn *in, struct evex_insn *out)
{
    unsigned sources = 0;
    bool first = true;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
            op->encoding == ZYDIS_OPERAND_ENCODING_MASK || op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            continue;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
            set_address(in, op, out);
        if (first && op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            out->dst = operand_of(op);
        else if (sources < 2)
            out->src[sources++] = operand_of(op);
        first = false;
    }
    out->imm = in->z.raw.imm[0].size ? (uint8_t)in->z.raw.imm[0].value.u : 0;
    if (in->z.mnemonic == ZYDIS_MNEMONIC_VPMULTISHIFTQB) // bytes of quadwords
        out->src[1].element = 8;
}

/* How many elements a mask governs; completes the length of a source that is broadcast. */
static void set_count(struct evex_insn *out)
{
    struct evex_operand *last = &out->src[out->src[1].kind ? 1 : 0];
    bool to_vector = out->dst.kind == EVEX_VECTOR || out->dst.kind == EVEX_MEMORY;
    bool narrows = to_vector && !out->src[1].kind &&
                   (last->kind == EVEX_VECTOR || last->kind == EVEX_MEMORY) &&
                   last->element > out->dst.element;
    unsigned governed =
        to_vector && !narrows ? out->dst.len / out->dst.element : out->len / last->element;
    if (last->kind == EVEX_MEMORY && out->broadcast)
        last->len =
            (uint8_t)(governed * last->element < out->len ? governed * last->element : out->len);
    out->count = (uint8_t)(out->scalar ? 1 : governed);
}

static bool suppresses(const struct insn *in)
{
    // Zydis 4.0 has these in class E4; they are in E4NF, since not each element has its own memory.
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VPMULTISHIFTQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
    case ZYDIS_MNEMONIC_VP2INTERSECTD:
    case ZYDIS_MNEMONIC_VP2INTERSECTQ:
        return false;
    default:
        break;
    }
    switch (in->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E4:
    case ZYDIS_EXCEPTION_CLASS_E5:
    case ZYDIS_EXCEPTION_CLASS_E6:
    case ZYDIS_EXCEPTION_CLASS_E10:
    case ZYDIS_EXCEPTION_CLASS_E11:
        return true;
    default:
        return false;
    }
}

/* --- the VEX instruction that does the same --- */

static void make_code(const struct insn *in, struct evex_insn *out)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    unsigned map = raw->evex.mmm, w = raw->evex.W, pp = raw->evex.pp, opcode = in->z.opcode;
    unsigned reg = 0, vvvv = out->src[1].kind ? 1 : 0, rm = out->src[1].kind ? 2 : 1,
             l = out->lane == 32;
    bool immediate = raw->imm[0].size;
    uint8_t imm = out->imm;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_VPERMILPD: // is W0 in VEX
        w = 0;
        break;
    case ZYDIS_MNEMONIC_VCVTPS2PH: // its destination is ModRM.rm
        reg = 1;
        rm = 0;
        break;
    case ZYDIS_MNEMONIC_VCOMISS:
    case ZYDIS_MNEMONIC_VCOMISD:
    case ZYDIS_MNEMONIC_VUCOMISS:
    case ZYDIS_MNEMONIC_VUCOMISD: // two sources, and no destination
        reg = 1;
        vvvv = 0;
        break;
    case ZYDIS_MNEMONIC_VCVTSI2SS: // from RAX
    case ZYDIS_MNEMONIC_VCVTSI2SD:
        rm = 0;
        break;
    case ZYDIS_MNEMONIC_VINSERTPS: // the element of a register that is in the imm is not chosen in
                                   // memory
        if (out->src[1].kind == EVEX_MEMORY)
            imm &= 0x3f;
        break;
    default:
        break;
    }
    if (out->dst.kind &&
        in->op[0].encoding ==
            ZYDIS_OPERAND_ENCODING_NDSNDD) { // shifts by an immediate: ModRM.reg is opcode
        reg = raw->modrm.reg;
        vvvv = 0;
    } else if (!out->src[1].kind) {
        vvvv = 0;
    }
    uint8_t *at = out->code;
    *at++ = 0xc4;
    *at++ = (uint8_t)(0xe0 | map);
    *at++ = (uint8_t)(w << 7 | (~vvvv & 15) << 3 | l << 2 | pp);
    *at++ = (uint8_t)opcode;
    *at++ = (uint8_t)(0xc0 | reg << 3 | rm);
    if (immediate)
        *at++ = imm;
    *at = 0xc3; // ret
}

bool evex_prepare(const struct insn *in, struct evex_insn *out)
{
    const struct rule *rule = find_rule(in->z.mnemonic);
    if (!rule)
        return false;
    __builtin_memset(out, 0, sizeof(*out));
    uint8_t how = rule->how;
    out->what = rule->what;
    out->insn_len = in->z.length;
    out->base = out->index = NO_REG;
    set_operands(in, out);
    if (how == SAVE || how == RESTORE) {
        set_address(in, memory_operand(in, how == SAVE), out);
        out->dst.kind = out->src[0].kind = EVEX_NONE;
        out->imm = in->z.operand_width == 64;
        out->run = operations[how];
        return true;
    }
    if (how == PERMUTE && !out->src[1].kind) // by an immediate, which VEX has
        how = NATIVE;
    if (in->z.mnemonic == ZYDIS_MNEMONIC_VPERMILPD &&
        !out->src[1].kind) // a bit of the immediate for each element
        how = SHUFFLE_PAIRS;
    if ((how == ROUND || how == ROUND_SCALAR) && out->imm >> 4) { // not to a multiple of 1
        how = how == ROUND ? PARTS : PARTS_SCALAR;
        out->what = EVEX_ROUND_SCALE;
    }
    out->len = (uint8_t)(in->z.avx.vector_length / 8);
    out->scalar = how == FLOAT_SCALAR || how == ROUND_SCALAR || how == FLAGS_FLOAT ||
                  how == MOVE_LOW || how == CONVERT_SCALAR || how == CLASSIFY_SCALAR ||
                  how == PARTS_SCALAR || in->z.mnemonic == ZYDIS_MNEMONIC_VCMPSS ||
                  in->z.mnemonic == ZYDIS_MNEMONIC_VCMPSD;
    if (out->scalar)
        out->len = 16;
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
        out->mask = (uint8_t)in->z.raw.evex.aaa;
        out->zeroing = in->z.raw.evex.z;
        if (in->z.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID &&
            !in->z.avx.broadcast.is_static)
            out->broadcast = out->src[out->src[1].kind ? 1 : 0].element;
        // Zydis has the names of rounding in the order of EVEX.RC.
        if (in->z.avx.rounding.mode != ZYDIS_ROUNDING_MODE_INVALID)
            out->rounding =
                (uint8_t)(EVEX_NEAREST + in->z.avx.rounding.mode - ZYDIS_ROUNDING_MODE_RN);
        else if (in->z.avx.has_sae)
            out->rounding = EVEX_SAE;
    }
    out->suppresses = suppresses(in);
    out->aligned = in->z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1 ||
                   in->z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1NF;
    out->is_float = how == FLOAT || how == FLOAT_SCALAR || how == COMPARE_FLOAT ||
                    how == FLAGS_FLOAT || how == ROUND || how == ROUND_SCALAR;
    out->lane = how == LANES || out->len == 16 ? 16 : 32;
    if (how == GATHER || how == SCATTER) { // they access memory themselves
        out->src[how == GATHER ? 0 : 1].kind = EVEX_NONE;
        out->count = 64;
    } else if (how != MASK_OP) {
        set_count(out);
    }
    if (out->is_float || how == NATIVE || how == LANES || how == COMPARE_NATIVE)
        make_code(in, out);
    if (how == DOT_BF16)
        __builtin_memcpy(out->code, (const uint8_t[]){0xc4, 0xe2, 0x75, 0xb8, 0xc2, 0xc3},
                         6); // vfmadd231ps ymm0, ymm1, ymm2; ret
    out->run = operations[how];
    return true;
}

/* --- emitting --- */

static void emit_low(struct block_maker *m, bool store, unsigned n)
{
    struct emitter *e = &m->hot;
    emit8(e, 0xc5); // vmovdqu [v[n]], ymm_n, or back
    emit8(e, n >= 8 ? 0x7e : 0xfe);
    emit8(e, store ? 0x7f : 0x6f);
    emit8(e, (uint8_t)(0x04 | (n & 7) << 3));
    emit8(e, 0x25);
    emit32(e, (uint32_t)(uintptr_t)evex_registers->v[n]);
}

static bool is_low(const struct evex_operand *op)
{
    return op->kind == EVEX_VECTOR && op->number < 16;
}

void evex_emit(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    struct evex_insn prepared;
    if (!evex_prepare(in, &prepared))
        engine_host_fatal("an instruction cannot be emulated any more");
    if (!m->t->calls && evex_emit_inline(m, idx, &prepared))
        return;
    add_point(m, idx, nothing_spilled, true);
    uint32_t stored = (is_low(&prepared.dst) ? 1u << prepared.dst.number : 0) |
                      (is_low(&prepared.src[0]) ? 1u << prepared.src[0].number : 0) |
                      (is_low(&prepared.src[1]) ? 1u << prepared.src[1].number : 0);
    if ((prepared.run == evex_gather || prepared.run == evex_scatter) && prepared.index < 16)
        stored |= 1u << prepared.index;
    for (unsigned n = 0; n < 16; n++) {
        if (stored >> n & 1)
            emit_low(m, true, n);
    }
    while ((uintptr_t)m->cold.at % 8)
        emit8(&m->cold, 0);
    uint64_t address = (uint64_t)(uintptr_t)m->cold.at;
    emit_store_imm(e, &s->evex, (uint32_t)address);
    emit_store_imm(e, (uint8_t *)&s->evex + 4, (uint32_t)(address >> 32));
    emit_jmp_abs(e, &s->call_evex);
    prepared.resume = (uint64_t)(uintptr_t)e->at;
    emit_bytes(&m->cold, (const uint8_t *)&prepared, sizeof(prepared));
    if (is_low(&prepared.dst))
        emit_low(m, false, prepared.dst.number);
}

void evex_emit_upper(struct block_maker *m, const struct insn *in)
{
    struct emitter *e = &m->hot;
    if (in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX &&
        in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_XOP)
        return;
    if (in->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || in->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL) {
        for (unsigned i = 0; i < sizeof(evex_registers->upper); i += 4)
            emit_store_imm(e, &evex_registers->upper[i], EVEX_UPPER_ZERO * 0x01010101u);
        return;
    }
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
        if (class != ZYDIS_REGCLASS_XMM && class != ZYDIS_REGCLASS_YMM)
            continue;
        emit_bytes(e, (const uint8_t[]){0xc6, 0x04, 0x25},
                   3); // mov byte [upper[n]], EVEX_UPPER_ZERO
        emit32(e, (uint32_t)(uintptr_t)&evex_registers->upper[ZydisRegisterGetId(op->reg.value)]);
        emit8(e, EVEX_UPPER_ZERO);
    }
}
