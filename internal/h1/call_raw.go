//go:build linux && !386 && !s390x

package h1

import (
	"syscall"
	"unsafe"
)

// The calls below are on sockets that do not block, so the scheduler need not be
// told: that costs more than some of them do. Calls that are for sockets alone
// cost less than those for all files. Linux on 386 and s390x has none of its own
// for each of them.

func readNow(fd int, p []byte) (int, error) {
	return callNow(syscall.SYS_RECVFROM, fd, p, 0)
}

func writeNow(fd int, p []byte) (int, error) {
	return callNow(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
}

func peekNow(fd int, p []byte) (int, error) {
	return callNow(syscall.SYS_RECVFROM, fd, p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}

func callNow(trap uintptr, fd int, p []byte, flags uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
