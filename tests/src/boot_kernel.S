/* A kernel for x86-64 that prints its version, its command line and its initrd on the serial port and turns the machine off. It starts
 * wherever Linux does (Documentation/arch/x86/boot.rst): iPXE and PXELINUX start its code for 16 bits, GRUB that for 32 bits, and UEFI
 * firmware that for 64 bits, as an EFI program (portable executable). Every offset counts from the start of the file.
 *
 * VERSION is its version, a string; SIZE is the size of the file, of which this is the start. */

#define SETUP 0x400 /* the size of the boot sector and of the code for 16 bits */
#define SERIAL 0x3f8
#define EXIT 0xf4 /* QEMU's device isa-debug-exit */
#define MAX 4096 /* the length of texts */
#define BUFFER 0x4000 /* the maximum size of an initrd that EFI provides */

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
        .short 0, 0, 1, 0, 0, 0 /* the image version 1: it takes its initrd from EFI */
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

/* Prints at most ECX characters from ESI or RSI, up to NUL. `load` loads a character. */
.macro print load=lodsb
1:      decl %ecx
        js 3f
        \load
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
3:
.endm

/* Turns the machine off. */
.macro exit
        xorl %eax, %eax
        outb %al, $EXIT
1:      hlt
        jmp 1b
.endm

/* Enters the code for 32 bits, as the 32-bit boot protocol does, with the boot parameters at ESI. */
        .org 0x268
        .code16
start16:
        cli
        movw %cs, %ax
        movw %ax, %ds
        xorl %esi, %esi
        movw %cs, %si
        shll $4, %esi
        leal gdt - base - 0x200(%esi), %eax
        movl %eax, gdt_pointer + 2 - base - 0x200
        subl $0x200, %esi
        lgdtl gdt_pointer - base - 0x200
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        movw $0x18, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        ljmpl $0x10, $0x100000
gdt_pointer:
        .short 31
        .long 0
version:
        .asciz VERSION
        .balign 8
gdt:    .quad 0, 0
        .quad 0x00cf9b000000ffff, 0x00cf93000000ffff /* all memory: code, data */

/* Prints the version, the command line and the start of the initrd. ESI has the boot parameters. */
        .org SETUP
        .code32
start32:
        cli
        movl %esi, %ebp
        leal 0x1e8(%esi), %esp /* the boot parameters have space for a return address */
        call here
here:   popl %edi
        leal text_version - here(%edi), %esi
        movl $MAX, %ecx
        print
        movl 0x228(%ebp), %esi
        testl %esi, %esi
        jz 4f
        movl $MAX, %ecx
        print
4:      leal text_initrd - here(%edi), %esi
        movl $MAX, %ecx
        print
        movl 0x218(%ebp), %esi
        movl 0x21c(%ebp), %ecx
        print
        leal text_end - here(%edi), %esi
        movl $MAX, %ecx
        print
        exit

        .code64
/* Does the same as an EFI program with its handle in RCX and the system table in RDX (UEFI sections 4.3, 9.1, 13.1): the options to
 * load it are its command line, and the first provider of LINUX_EFI_INITRD_MEDIA_GUID has the initrd. */
start64:
        subq $BUFFER + 72, %rsp
        movq 0x60(%rdx), %r12 /* the boot services */
        movq %rcx, %r13
        leaq text_version(%rip), %rsi
        movl $MAX, %ecx
        print
        movq %r13, %rcx
        leaq loaded_image(%rip), %rdx
        leaq 48(%rsp), %r8
        call *0x98(%r12) /* HandleProtocol */
        testq %rax, %rax
        jnz 4f
        movq 48(%rsp), %rax
        movl 0x30(%rax), %ecx
        movq 0x38(%rax), %rsi
        shrl $1, %ecx
        print lodsw
4:      leaq text_initrd(%rip), %rsi
        movl $MAX, %ecx
        print
        leaq initrd_path(%rip), %rax
        movq %rax, 48(%rsp)
        leaq load_file(%rip), %rcx
        leaq 48(%rsp), %rdx
        leaq 56(%rsp), %r8
        call *0xb8(%r12) /* LocateDevicePath */
        testq %rax, %rax
        jnz 5f
        movq 56(%rsp), %rcx
        leaq load_file(%rip), %rdx
        leaq 56(%rsp), %r8
        call *0x98(%r12) /* HandleProtocol */
        testq %rax, %rax
        jnz 5f
        movq 56(%rsp), %rcx
        movq 48(%rsp), %rdx
        xorl %r8d, %r8d
        movq $BUFFER, 56(%rsp)
        leaq 56(%rsp), %r9
        leaq 72(%rsp), %rax
        movq %rax, 32(%rsp)
        call *(%rcx) /* LoadFile */
        testq %rax, %rax
        jnz 5f
        movq 56(%rsp), %rcx
        leaq 72(%rsp), %rsi
        print
5:      leaq text_end(%rip), %rsi
        movl $MAX, %ecx
        print
        exit

text_version:
        .asciz "\r\n" VERSION " has started\r\ncommand line: "
text_initrd:
        .asciz "\r\ninitrd: "
text_end:
        .asciz "\r\n"
loaded_image: /* EFI_LOADED_IMAGE_PROTOCOL_GUID */
        .long 0x5b1b31a1
        .short 0x9562, 0x11d2
        .byte 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
load_file: /* EFI_LOAD_FILE2_PROTOCOL_GUID */
        .long 0x4006c0c1
        .short 0xfcb3, 0x403e
        .byte 0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d
initrd_path: /* a device path with LINUX_EFI_INITRD_MEDIA_GUID */
        .byte 4, 3, 20, 0
        .long 0x5568e427
        .short 0x68fc, 0x4f3d
        .byte 0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68
        .byte 0x7f, 0xff, 4, 0
