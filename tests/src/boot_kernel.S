/* A kernel for x86-64 that prints its version on the serial port and turns the machine off. It starts wherever Linux does
 * (Documentation/arch/x86/boot.rst): iPXE and PXELINUX start its code for 16 bits, GRUB that for 32 bits, and UEFI firmware that for
 * 64 bits, as an EFI program (portable executable). Every offset counts from the start of the file.
 *
 * VERSION is its version, a string; SIZE is the size of the file, of which this is the start. */

#define SETUP 0x400 /* the size of the boot sector and of the code for 16 bits */
#define SERIAL 0x3f8
#define EXIT 0xf4 /* QEMU's device isa-debug-exit */

base:
        .ascii "MZ"
        .org 0x3c
        .long 0x40

        .org 0x40
        .ascii "PE\0\0"
        .short 0x8664, 1 /* x86-64; one section */
        .long 0, 0, 0
        .short 0xf0, 0x22
        .short 0x20b, 0
        .long SIZE - SETUP, 0, 0
        .long 0x1000 + start64 - base - SETUP /* the entry point, in memory */
        .long 0x1000
        .quad 0x400000
        .long 0x1000, 0x200 /* alignment in memory and in the file */
        .short 0, 0, 0, 0, 0, 0
        .long 0, 0x1000 + SIZE, SETUP, 0
        .short 10, 0 /* an EFI application */
        .quad 0, 0, 0, 0
        .long 0, 16
        .fill 16, 8, 0
        .ascii ".text\0\0\0"
        .long SIZE - SETUP, 0x1000, SIZE - SETUP, SETUP
        .long 0, 0, 0, 0x60000020

        .org 0x1f1
        .byte 1 /* sectors of the code for 16 bits */
        .short 0
        .long (SIZE - SETUP) / 16
        .short 0, 0, 0, 0xaa55
        .org 0x200
        .byte 0xeb, start16 - base - 0x202 /* jmp start16 */
        .ascii "HdrS"
        .short 0x020c
        .long 0
        .short 0, version - base - 0x200
        .byte 0, 1 /* loaded at 1 MiB */
        .short 0
        .long 0x100000, 0, 0, 0
        .short 0xfe00, 0
        .long 0, 0x7fffffff, 0x200000
        .byte 1, 21
        .short 0
        .long 2047
        .org 0x260
        .long SIZE, 0

/* Prints the text at ESI or RSI, and turns the machine off. */
.macro print_and_exit
1:      lodsb
        testb %al, %al
        jz 3f
        movb %al, %bl
2:      movw $SERIAL + 5, %dx
        inb %dx, %al
        testb $0x20, %al /* whether it accepts a byte */
        jz 2b
        movw $SERIAL, %dx
        movb %bl, %al
        outb %al, %dx
        jmp 1b
3:      xorl %eax, %eax
        outb %al, $EXIT
4:      hlt
        jmp 4b
.endm

        .org 0x268
        .code16
start16:
        cli
        movw %cs, %ax
        movw %ax, %ds
        movw $(text - base - 0x200), %si
        print_and_exit
text:   .ascii "\r\n"
version:
        .asciz VERSION " has started\r\n"

        .org SETUP
        .code32
start32:
        cli
        leal 0x1e8(%esi), %esp /* the boot parameters have space for a return address */
        call 1f
1:      popl %esi
        addl $(text64 - 1b), %esi
        print_and_exit

        .code64
start64:
        cli
        leaq text64(%rip), %rsi
        print_and_exit
text64: .asciz "\r\n" VERSION " has started\r\n"
