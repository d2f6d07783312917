/* A kernel for 64-bit ARM that prints a text on the serial port of QEMU's board `virt` and turns the board off. Its header is that of
 * Linux (Documentation/arch/arm64/booting.rst). SIZE is the size of the file, the macro `text` the text. */

        b start
        .long 0
        .quad 0 /* the offset of the image in memory */
        .quad SIZE
        .quad 0xa /* pages of 4 KiB, anywhere in memory */
        .quad 0, 0, 0
        .ascii "ARM\x64"
        .long 0
start:  adr x1, first
        mov x2, #0x09000000 /* the serial port, a PL011 */
1:      ldrb w3, [x1], #1
        cbz w3, 3f
2:      ldr w4, [x2, #0x18]
        tbnz w4, #5, 2b /* whether it is full */
        str w3, [x2]
        b 1b
3:      movz w0, #0x0008
        movk w0, #0x8400, lsl #16 /* SYSTEM_OFF of PSCI */
        hvc #0
4:      wfi
        b 4b
first:  text
