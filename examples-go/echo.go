// The library from Go, by cgo: streams are os.Files in the runtime's poller, with deadlines, and hold no thread while
// they wait.
//
// usage: go run echo.go FOLDER [SAM UDP]   FOLDER keeps the keys; SAM and UDP are HOST:PORT of the router's bridge
//
// A server and a client, which could as well be on two sides of the world: the server has an address that stays, and
// sends a mebibyte back; then two datagrams.
package main

/*
#cgo pkg-config: i2psock
#include <i2psock.h>
#include <stdlib.h>
*/
import "C"

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const patience = 2 * time.Minute

// What an i2psock_error tells.
type failure struct {
	status               C.i2psock_status
	operation            C.i2psock_operation
	during, tag, message string
}

func (f *failure) Error() string {
	return f.during + ": " + f.message
}

// Makes a Go error of what a call has returned, and frees what there is to free.
func check(status C.i2psock_status, err *C.i2psock_error) error {
	if status == C.I2PSOCK_OK {
		return nil
	}
	defer C.i2psock_error_free(err)
	return &failure{
		status:    status,
		operation: C.i2psock_error_operation(err),
		during:    C.GoString(C.i2psock_error_operation_name(err)),
		tag:       C.GoString(C.i2psock_error_tag(err)),
		message:   C.GoString(C.i2psock_error_message(err)),
	}
}

func set(options *C.i2psock_options, key, value string) error {
	k, v := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(v))
	var err *C.i2psock_error
	status := C.i2psock_options_set(options, k, v, &err)
	return check(status, err)
}

// Blocks, and holds a thread meanwhile, as every blocking call of C does.
func open(controller *C.i2psock_controller, name string, style C.int) (*C.i2psock_dest, error) {
	n := C.CString(name) // "" is a new address each time, as NULL is
	defer C.free(unsafe.Pointer(n))
	var dest *C.i2psock_dest
	var err *C.i2psock_error
	status := C.i2psock_dest_open(controller, n, style, nil, C.I2PSOCK_TIMEOUT_DEFAULT, &dest, &err)
	return dest, check(status, err)
}

// Gives a stream's descriptor to Go, and frees the handle. It must be non-blocking before, or else it does not get into
// the poller.
func file(stream *C.i2psock_stream, name string) (*os.File, error) {
	defer C.i2psock_stream_free(stream)
	var fd C.i2psock_fd
	var err *C.i2psock_error
	if status := C.i2psock_stream_set_nonblocking(stream, 1, &err); status != C.I2PSOCK_OK {
		return nil, check(status, err)
	}
	if status := C.i2psock_stream_take_fd(stream, &fd, &err); status != C.I2PSOCK_OK {
		return nil, check(status, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Calls `step` until it does not return I2PSOCK_BLOCK, whenever the borrowed `fd` is readable. The poller gets a copy,
// because Go closes what it is given.
func wait(fd C.i2psock_fd, limit time.Duration, step func() C.i2psock_status) error {
	dup, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return errno
	}
	poller := os.NewFile(dup, "i2psock")
	defer poller.Close()
	if err := poller.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	conn, err := poller.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(uintptr) bool { return step() != C.I2PSOCK_BLOCK })
}

// What a failure tells.
func lookup(controller *C.i2psock_controller) error {
	name := C.CString("nobody.i2p")
	defer C.free(unsafe.Pointer(name))
	var addr *C.i2psock_addr
	var cause *C.i2psock_error
	status := C.i2psock_controller_lookup(controller, name, C.I2PSOCK_TIMEOUT_DEFAULT, &addr, &cause)
	defer C.i2psock_addr_free(addr)
	var f *failure
	err := check(status, cause)
	if !errors.As(err, &f) || f.status != C.I2PSOCK_NETWORK || f.operation != C.I2PSOCK_OP_LOOKUP {
		return fmt.Errorf("nobody.i2p is somebody: %v", err)
	}
	// Functions that take a status take an int: C's enums are unsigned here.
	fmt.Printf("failure: %s, %s, %s\n", C.GoString(C.i2psock_status_name(C.int(f.status))), f.tag, f.message)
	return nil
}

func streams(controller *C.i2psock_controller) error {
	// A name keeps its address.
	here, err := open(controller, "echo", C.I2PSOCK_STREAM)
	if err != nil {
		return err
	}
	address := C.GoString(C.i2psock_addr_host(C.i2psock_dest_addr(here)))
	C.i2psock_dest_close(here)
	if here, err = open(controller, "echo", C.I2PSOCK_STREAM); err != nil {
		return err
	}
	defer C.i2psock_dest_close(here)
	if address != C.GoString(C.i2psock_addr_host(C.i2psock_dest_addr(here))) {
		return errors.New("the address did not stay")
	}
	fmt.Println("address:", address)
	there, err := open(controller, "", C.I2PSOCK_STREAM)
	if err != nil {
		return err
	}
	defer C.i2psock_dest_close(there)

	var listener *C.i2psock_listener
	var stream *C.i2psock_stream
	var cause *C.i2psock_error
	status := C.i2psock_listener_open(here, 0, nil, &listener, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	defer C.i2psock_listener_close(listener)
	base64 := C.i2psock_addr_base64(C.i2psock_dest_addr(here))
	status = C.i2psock_dest_connect(there, base64, nil, C.I2PSOCK_TIMEOUT_DEFAULT, &stream, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	client, err := file(stream, "client")
	if err != nil {
		return err
	}
	defer client.Close()
	if err := wait(C.i2psock_listener_fd(listener), patience, func() C.i2psock_status {
		status = C.i2psock_listener_accept(listener, &stream, &cause)
		return status
	}); err != nil {
		return err
	}
	if err := check(status, cause); err != nil {
		return err
	}
	if C.i2psock_addr_equal(C.i2psock_stream_peer(stream), C.i2psock_dest_addr(there)) == 0 {
		C.i2psock_stream_free(stream)
		return errors.New("a stranger came")
	}
	server, err := file(stream, "server")
	if err != nil {
		return err
	}
	defer server.Close()
	return echo(client, server)
}

// Sends a mebibyte from one end to the other and back. From here on it is all Go.
func echo(client, server *os.File) error {
	if err := client.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("reading from a silent peer: %v", err)
	}
	for _, end := range []*os.File{client, server} {
		if err := end.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
	}
	data, back, number := make([]byte, 1<<20), make([]byte, 1<<20), uint32(0)
	for i := range data {
		number = number*1664525 + 1013904223
		data[i] = byte(number >> 24)
	}
	done := make(chan error, 2)
	go func() {
		_, err := io.CopyN(server, server, int64(len(data)))
		done <- err
	}()
	go func() {
		_, err := client.Write(data)
		done <- err
	}()
	_, err := io.ReadFull(client, back)
	for i := 0; i < 2; i++ {
		if other := <-done; err == nil {
			err = other
		}
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(back)
	if sum != sha256.Sum256(data) {
		return errors.New("something else came back")
	}
	fmt.Printf("stream: %d bytes, SHA-256 %x\n", len(back), sum)
	return nil
}

// Sends a datagram, again if need be, until it has come to the other side.
func deliver(from, to *C.i2psock_dgram, text []byte) error {
	about := C.i2psock_from_new()
	defer C.i2psock_from_free(about)
	buffer := make([]byte, C.I2PSOCK_COLLECT_SIZE)
	var count C.size_t
	var cause *C.i2psock_error
	for i := 0; i < 30; i++ {
		address := C.i2psock_addr_base64(C.i2psock_dgram_dest(to))
		status := C.i2psock_dgram_send_to(from, address, unsafe.Pointer(&text[0]), C.size_t(len(text)), 0, nil, &cause)
		if err := check(status, cause); err != nil {
			return err
		}
		err := wait(C.i2psock_dgram_fd(to), 2*time.Second, func() C.i2psock_status {
			data, size := unsafe.Pointer(&buffer[0]), C.size_t(len(buffer))
			status = C.i2psock_dgram_recv_from(to, data, size, 0, &count, about, &cause)
			return status
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return err
		}
		if err := check(status, cause); err != nil {
			return err
		}
		if bytes.Equal(buffer[:count], text) {
			if C.i2psock_addr_equal(C.i2psock_from_addr(about), C.i2psock_dgram_dest(from)) == 0 {
				return errors.New("somebody else sent it")
			}
			fmt.Printf("datagram: %s\n", text)
			return nil
		}
	}
	return errors.New("no datagram came")
}

func datagrams(controller *C.i2psock_controller) error {
	var dgrams [2]*C.i2psock_dgram
	for i := range dgrams {
		dest, err := open(controller, "", C.I2PSOCK_DGRAM)
		if err != nil {
			return err
		}
		defer C.i2psock_dest_close(dest)
		var cause *C.i2psock_error
		status := C.i2psock_dest_bind(dest, &dgrams[i], &cause)
		if err := check(status, cause); err != nil {
			return err
		}
		defer C.i2psock_dgram_free(dgrams[i])
		status = C.i2psock_dgram_set_nonblocking(dgrams[i], 1, &cause)
		if err := check(status, cause); err != nil {
			return err
		}
	}
	if err := deliver(dgrams[1], dgrams[0], []byte("ping")); err != nil {
		return err
	}
	return deliver(dgrams[0], dgrams[1], []byte("pong"))
}

func run(args []string) error {
	options := C.i2psock_options_new()
	defer C.i2psock_options_free(options)
	var cause *C.i2psock_error
	status := C.i2psock_options_from_env(options, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	for i, key := range []string{"key_store", "sam", "udp"}[:len(args)] {
		if err := set(options, key, args[i]); err != nil {
			return err
		}
	}
	var controller *C.i2psock_controller
	status = C.i2psock_controller_open(options, &controller, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	defer C.i2psock_controller_close(controller)
	for _, part := range []func(*C.i2psock_controller) error{lookup, streams, datagrams} {
		if err := part(controller); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 && len(os.Args) != 4 {
		fmt.Fprintf(os.Stderr, "usage: %s FOLDER [SAM UDP]\n", os.Args[0])
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}
