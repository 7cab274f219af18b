package proxy

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf returns the user of the process that has connected.
func peerOf(conn *net.UnixConn) (uid int, err error) {
	err = onSocket(conn, func(fd int) error {
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			uid = int(peer.Uid)
		}
		return err
	})
	return uid, err
}
