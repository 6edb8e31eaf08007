// The library under Go's scheduler: streams that wait in the runtime's poller cost no threads, and a thousand
// goroutines on one controller each get what is theirs, errors included.
//
// usage: goroutines FOLDER SAM
package main

/*
#cgo pkg-config: i2psock
#include <i2psock.h>
#include <stdlib.h>
extern void hook(void *user, char *text);
*/
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	idle       = 200
	goroutines = 1000
	names      = 50
	patience   = 5 * time.Minute
	// More than the runtime starts for itself, and far fewer than one for each stream.
	spareThreads = 20
)

type failure struct {
	status       C.i2psock_status
	operation    C.i2psock_operation
	tag, message string
}

func (f *failure) Error() string {
	return fmt.Sprintf("status %d, operation %d, tag %q: %s", f.status, f.operation, f.tag, f.message)
}

func check(status C.i2psock_status, cause *C.i2psock_error) error {
	if status == C.I2PSOCK_OK {
		return nil
	}
	defer C.i2psock_error_free(cause)
	if told := C.i2psock_error_status(cause); told != status {
		return fmt.Errorf("status %d came with an error of status %d", status, told)
	}
	return &failure{status, C.i2psock_error_operation(cause), C.GoString(C.i2psock_error_tag(cause)),
		C.GoString(C.i2psock_error_message(cause))}
}

// Calls a function of the library with a C string.
func with(text string, call func(*C.char, **C.i2psock_error) C.i2psock_status) error {
	var cause *C.i2psock_error
	c := C.CString(text)
	defer C.free(unsafe.Pointer(c))
	status := call(c, &cause)
	return check(status, cause)
}

func open(controller *C.i2psock_controller, name string, style int) (dest *C.i2psock_dest, err error) {
	err = with(name, func(text *C.char, cause **C.i2psock_error) C.i2psock_status {
		return C.i2psock_dest_open(controller, text, C.int(style), nil, C.I2PSOCK_TIMEOUT_DEFAULT, &dest, cause)
	})
	return
}

func set(options *C.i2psock_options, key, value string) error {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	return with(value, func(text *C.char, cause **C.i2psock_error) C.i2psock_status {
		return C.i2psock_options_set(options, k, text, cause)
	})
}

func address(dest *C.i2psock_dest) string {
	return C.GoString(C.i2psock_addr_base64(C.i2psock_dest_addr(dest)))
}

func connect(dest *C.i2psock_dest, to string) (*os.File, error) {
	var stream *C.i2psock_stream
	if err := with(to, func(text *C.char, cause **C.i2psock_error) C.i2psock_status {
		return C.i2psock_dest_connect(dest, text, nil, C.I2PSOCK_TIMEOUT_DEFAULT, &stream, cause)
	}); err != nil {
		return nil, err
	}
	return file(stream)
}

func file(stream *C.i2psock_stream) (*os.File, error) {
	defer C.i2psock_stream_free(stream)
	var fd C.i2psock_fd
	var cause *C.i2psock_error
	status := C.i2psock_stream_set_nonblocking(stream, 1, &cause)
	if err := check(status, cause); err != nil {
		return nil, err
	}
	status = C.i2psock_stream_take_fd(stream, &fd, &cause)
	if err := check(status, cause); err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "stream")
	return file, file.SetDeadline(time.Now().Add(patience))
}

// Accepts streams without a thread that waits, and hands them to `serve`.
func serve(dest *C.i2psock_dest, serve func(*os.File)) error {
	var listener *C.i2psock_listener
	var cause *C.i2psock_error
	options := C.i2psock_options_new()
	defer C.i2psock_options_free(options)
	if err := set(options, "accepts", "16"); err != nil {
		return err
	}
	status := C.i2psock_listener_open(dest, 64, options, &listener, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	fd := uintptr(C.i2psock_listener_fd(listener))
	dup, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return errno
	}
	poller := os.NewFile(dup, "listener")
	conn, err := poller.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		defer C.i2psock_listener_close(listener)
		defer poller.Close()
		for {
			var stream *C.i2psock_stream
			var status C.i2psock_status
			var cause *C.i2psock_error
			if conn.Read(func(uintptr) bool {
				status = C.i2psock_listener_accept(listener, &stream, &cause)
				return status != C.I2PSOCK_BLOCK
			}) != nil || check(status, cause) != nil {
				return // the destination has ended
			}
			if file, err := file(stream); err == nil {
				go serve(file)
			}
		}
	}()
	return nil
}

var acceptsSeen int32

// The log hook. Accepts are armed by the library's own thread, which Go has not made.
//
//export hook
func hook(_ unsafe.Pointer, text *C.char) {
	if strings.HasPrefix(C.GoString(text), "-> STREAM ACCEPT ") {
		atomic.AddInt32(&acceptsSeen, 1)
	}
}

func threads() int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		panic(err)
	}
	return len(tasks)
}

// How many goroutines wait in the runtime's poller.
func polling() int {
	buffer := make([]byte, 16<<20)
	return bytes.Count(buffer[:runtime.Stack(buffer, true)], []byte(" [IO wait"))
}

func waitForPolling(count int) error {
	for end := time.Now().Add(patience); polling() != count; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d goroutines wait in the poller, not %d", polling(), count)
		}
	}
	return nil
}

// Streams that wait, each in a goroutine of its own.
func waitIdle(controller *C.i2psock_controller) error {
	here, err := open(controller, "idle", C.I2PSOCK_STREAM)
	if err != nil {
		return err
	}
	defer C.i2psock_dest_close(here)
	there, err := open(controller, "", C.I2PSOCK_STREAM)
	if err != nil {
		return err
	}
	defer C.i2psock_dest_close(there)
	accepted := make(chan *os.File, idle)
	if err := serve(here, func(stream *os.File) { accepted <- stream }); err != nil {
		return err
	}
	if err := waitForPolling(1); err != nil { // that is the listener
		return err
	}
	var cause *C.i2psock_error
	status := C.i2psock_controller_set_log(controller, C.i2psock_log_fn(C.hook), nil, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	read := make(chan error, idle)
	before := 0
	for i := 0; i < idle; i++ {
		stream, err := connect(there, address(here))
		if err != nil {
			return err
		}
		defer stream.Close()
		go func() {
			_, err := io.ReadFull(stream, make([]byte, 1))
			read <- err
		}()
		if i == 0 {
			// The runtime has had to do with everything once.
			if err := waitForPolling(2); err != nil {
				return err
			}
			before = threads()
		}
	}
	if err := waitForPolling(1 + idle); err != nil {
		return err
	}
	after := threads()
	for i := 0; i < idle; i++ {
		stream := <-accepted
		defer stream.Close()
		if _, err := stream.Write([]byte{1}); err != nil {
			return err
		}
	}
	for i := 0; i < idle; i++ {
		if err := <-read; err != nil {
			return err
		}
	}
	status = C.i2psock_controller_set_log(controller, nil, nil, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	if seen := atomic.LoadInt32(&acceptsSeen); seen < idle/2 { // some were armed before
		return fmt.Errorf("the log hook was called for %d accepts", seen)
	}
	fmt.Printf("%d idle streams: %d threads, with the first one %d\n", idle, after, before)
	if after > before+spareThreads {
		return errors.New("idle streams hold threads")
	}
	return nil
}

// One of a thousand. `number` tells its errors from those of all others.
func one(controller *C.i2psock_controller, number int, server string) error {
	dest, err := open(controller, fmt.Sprintf("shared-%d", number%names), C.I2PSOCK_STREAM)
	if err != nil {
		return err
	}
	defer C.i2psock_dest_close(dest)
	tasks := []func() error{
		func() error {
			none, err := open(controller, "", number)
			C.i2psock_dest_close(none)
			return expect(err, C.I2PSOCK_INVALID, "", fmt.Sprintf("there is no style %d", number))
		},
		func() error { return unknown(controller, fmt.Sprintf("nobody-%d.i2p", number)) },
		func() error {
			options := C.i2psock_options_new()
			defer C.i2psock_options_free(options)
			key := fmt.Sprintf("wrong_%d", number)
			return expect(set(options, key, "1"), C.I2PSOCK_INVALID, "", `"`+key+`"`)
		},
		func() error { return echo(dest, server, uint64(number)) },
	}
	for i := range tasks {
		if err := tasks[(number+i)%len(tasks)](); err != nil {
			return fmt.Errorf("goroutine %d: %w", number, err)
		}
	}
	return nil
}

func expect(err error, status C.i2psock_status, tag, message string) error {
	var f *failure
	if !errors.As(err, &f) || f.status != status || f.tag != tag || !strings.Contains(f.message, message) {
		return fmt.Errorf("wants status %d, tag %q and %s, gets %v", status, tag, message, err)
	}
	return nil
}

// A name that does not resolve; the router's reply repeats it.
func unknown(controller *C.i2psock_controller, name string) error {
	var pending *C.i2psock_pending
	if err := with(name, func(text *C.char, cause **C.i2psock_error) C.i2psock_status {
		return C.i2psock_controller_lookup_start(controller, text, C.I2PSOCK_TIMEOUT_DEFAULT, &pending, cause)
	}); err != nil {
		return err
	}
	defer C.i2psock_pending_free(pending)
	var cause *C.i2psock_error
	status := C.i2psock_pending_wait(pending, -1, &cause)
	if err := expect(check(status, cause), C.I2PSOCK_NETWORK, "KEY_NOT_FOUND", ""); err != nil {
		return err
	}
	key := C.CString("NAME")
	defer C.free(unsafe.Pointer(key))
	if told := C.GoString(C.i2psock_pending_reply(pending, key)); told != name {
		return fmt.Errorf("asked for %s and was told of %q", name, told)
	}
	return nil
}

func echo(dest *C.i2psock_dest, server string, number uint64) error {
	stream, err := connect(dest, server)
	if err != nil {
		return err
	}
	defer stream.Close()
	var back uint64
	if err := binary.Write(stream, binary.BigEndian, number); err != nil {
		return err
	}
	if err := binary.Read(stream, binary.BigEndian, &back); err != nil {
		return err
	}
	if back != number {
		return fmt.Errorf("the stream of %d came", back)
	}
	return nil
}

func many(controller *C.i2psock_controller) error {
	here, err := open(controller, "many", C.I2PSOCK_STREAM)
	if err != nil {
		return err
	}
	defer C.i2psock_dest_close(here)
	if err := serve(here, func(stream *os.File) {
		defer stream.Close()
		io.Copy(stream, stream)
	}); err != nil {
		return err
	}
	server := address(here)
	results := make(chan error, goroutines)
	var start sync.WaitGroup
	start.Add(1)
	for i := 0; i < goroutines; i++ {
		number := 10000 + i
		go func() {
			start.Wait()
			results <- one(controller, number, server)
		}()
	}
	start.Done()
	var first error
	wrong := 0
	for i := 0; i < goroutines; i++ {
		if err := <-results; err != nil {
			wrong++
			if first == nil {
				first = err
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d goroutines failed; the first: %w", wrong, goroutines, first)
	}
	fmt.Printf("%d goroutines: %d threads at the end\n", goroutines, threads())
	return nil
}

func run(folder, sam string) error {
	options := C.i2psock_options_new()
	defer C.i2psock_options_free(options)
	for key, value := range map[string]string{"key_store": folder, "sam": sam, "sam_timeout": "600000"} {
		if err := set(options, key, value); err != nil {
			return err
		}
	}
	var controller *C.i2psock_controller
	var cause *C.i2psock_error
	status := C.i2psock_controller_open(options, &controller, &cause)
	if err := check(status, cause); err != nil {
		return err
	}
	defer C.i2psock_controller_close(controller)
	if err := waitIdle(controller); err != nil { // first: threads that were needed once stay
		return err
	}
	return many(controller)
}

func main() {
	runtime.GOMAXPROCS(4)
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
