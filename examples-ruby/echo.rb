#!/usr/bin/env ruby
# frozen_string_literal: true

# The library from Ruby, with nothing but Fiddle, which comes with it: descriptors are IO objects for IO.select.
#
# usage: ruby echo.rb FOLDER [SAM UDP]   FOLDER keeps the keys; SAM and UDP are HOST:PORT of the router's bridge
#
# A server and a client, which could as well be on two sides of the world, in one thread: the server has an address
# that stays, and sends a mebibyte back; then two datagrams.

require "digest"
require "fiddle/import"

# What is used of i2psock.h. Other threads run while such a function blocks.
module I2P
  extend Fiddle::Importer
  dlload "libi2psock.so.0"
  extern "char *i2psock_status_name(int)"
  extern "int i2psock_error_status(void *)"
  extern "char *i2psock_error_operation_name(void *)"
  extern "char *i2psock_error_tag(void *)"
  extern "char *i2psock_error_message(void *)"
  extern "void i2psock_error_free(void *)"
  extern "void *i2psock_options_new()"
  extern "int i2psock_options_set(void *, char *, char *, void **)"
  extern "int i2psock_options_from_env(void *, void **)"
  extern "void i2psock_options_free(void *)"
  extern "char *i2psock_addr_base64(void *)"
  extern "char *i2psock_addr_host(void *)"
  extern "void i2psock_addr_free(void *)"
  extern "int i2psock_addr_equal(void *, void *)"
  extern "int i2psock_controller_open(void *, void **, void **)"
  extern "int i2psock_controller_lookup(void *, char *, int, void **, void **)"
  extern "void i2psock_controller_close(void *)"
  extern "int i2psock_dest_open(void *, char *, int, void *, int, void **, void **)"
  extern "void *i2psock_dest_addr(void *)"
  extern "int i2psock_dest_connect(void *, char *, void *, int, void **, void **)"
  extern "int i2psock_dest_bind(void *, void **, void **)"
  extern "void i2psock_dest_close(void *)"
  extern "int i2psock_listener_open(void *, int, void *, void **, void **)"
  extern "int i2psock_listener_fd(void *)"
  extern "int i2psock_listener_accept(void *, void **, void **)"
  extern "void i2psock_listener_close(void *)"
  extern "void *i2psock_stream_peer(void *)"
  extern "int i2psock_stream_fd(void *)"
  extern "int i2psock_stream_take_fd(void *, int *, void **)"
  extern "void i2psock_stream_free(void *)"
  extern "int i2psock_dgram_fd(void *)"
  extern "void *i2psock_dgram_dest(void *)"
  extern "int i2psock_dgram_set_nonblocking(void *, int, void **)"
  extern "int i2psock_dgram_send_to(void *, char *, void *, size_t, int, void *, void **)"
  extern "int i2psock_dgram_recv_from(void *, void *, size_t, int, size_t *, void *, void **)"
  extern "void i2psock_dgram_free(void *)"
  extern "void *i2psock_from_new()"
  extern "void *i2psock_from_addr(void *)"
  extern "void i2psock_from_free(void *)"

  # Its constants: a dynamic library has no macros.
  OK, BLOCK, NETWORK = 0, 1, 3
  STREAM, DGRAM = 1, 2
  TIMEOUT_DEFAULT = -1
  COLLECT_SIZE = 32_768

  # What an i2psock_error tells.
  class Error < StandardError
    attr_reader :status, :operation, :tag

    # Frees the C object.
    def initialize(error)
      @status = I2P.i2psock_error_status(error)
      @tag = I2P.i2psock_error_tag(error).to_s
      @operation = I2P.i2psock_error_operation_name(error).to_s
      super(I2P.i2psock_error_message(error).to_s.force_encoding(Encoding::UTF_8))
      I2P.i2psock_error_free(error)
    end
  end
end

PATIENCE = 120 # s

# Room for a pointer or a number that a function sets.
def out
  Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
end

# Calls a function whose last argument is `err`. Returns false if it would have blocked.
def call(function, *args)
  err = out
  status = I2P.public_send(function, *args, err)
  raise I2P::Error, err.ptr unless [I2P::OK, I2P::BLOCK].include?(status)

  status == I2P::OK
end

# The same for one that has an `out` before it, which is returned, or nil.
def get(function, *args)
  result = out
  call(function, *args, result) ? result.ptr : nil
end

# Lends a handle to a block and frees it afterwards.
def with(handle, free)
  yield handle
ensure
  I2P.public_send(free, handle)
end

def open_dest(controller, name, style, &block)
  with(get(:i2psock_dest_open, controller, name, style, nil, I2P::TIMEOUT_DEFAULT), :i2psock_dest_close, &block)
end

def host(dest)
  I2P.i2psock_addr_host(I2P.i2psock_dest_addr(dest)).to_s
end

# A descriptor that stays the library's.
def borrow(fd)
  IO.for_fd(fd, "r+b", autoclose: false)
end

# What a failure tells.
def failure(controller)
  addr = get(:i2psock_controller_lookup, controller, "nobody.i2p", I2P::TIMEOUT_DEFAULT)
  I2P.i2psock_addr_free(addr)
  abort "nobody.i2p is somebody"
rescue I2P::Error => e
  raise unless e.status == I2P::NETWORK && e.operation == "lookup"

  puts "failure: #{I2P.i2psock_status_name(e.status)}, #{e.tag}, #{e.message}"
end

def listen(dest, &block)
  with(get(:i2psock_listener_open, dest, 0, nil), :i2psock_listener_close, &block)
end

def accept(listener)
  io = borrow(I2P.i2psock_listener_fd(listener))
  until (stream = get(:i2psock_listener_accept, listener))
    IO.select([io], nil, nil, PATIENCE) or abort "nobody came"
  end
  stream
end

# Sends `data` from one end to the other and back, and returns what has come back.
def echo(client, server, data)
  held = +""
  back = +""
  sent = 0
  while back.bytesize < data.bytesize
    writers = []
    writers << client if sent < data.bytesize
    writers << server unless held.empty?
    readers, writers = IO.select(held.empty? ? [client, server] : [client], writers, nil, PATIENCE)
    readers or abort "the streams stand still"
    if writers.include?(client)
      count = client.write_nonblock(data.byteslice(sent, 65_536), exception: false)
      sent += count unless count == :wait_writable
    end
    if writers.include?(server)
      count = server.write_nonblock(held, exception: false)
      held = held.byteslice(count..) unless count == :wait_writable
    end
    readers.each do |io|
      bytes = io.read_nonblock(65_536, exception: false)
      bytes or abort "the stream has ended"
      (io == client ? back : held) << bytes unless bytes == :wait_readable
    end
  end
  back
end

def streams(controller)
  # A name keeps its address.
  address = open_dest(controller, "echo", I2P::STREAM) { |dest| host(dest) }
  open_dest(controller, "echo", I2P::STREAM) do |here|
    host(here) == address or abort "the address did not stay"
    puts "address: #{address}"
    open_dest(controller, nil, I2P::STREAM) do |there|
      listen(here) do |listener|
        base64 = I2P.i2psock_addr_base64(I2P.i2psock_dest_addr(here))
        outgoing = get(:i2psock_dest_connect, there, base64, nil, I2P::TIMEOUT_DEFAULT)
        with(outgoing, :i2psock_stream_free) do
          with(accept(listener), :i2psock_stream_free) do |incoming|
            I2P.i2psock_addr_equal(I2P.i2psock_stream_peer(incoming), I2P.i2psock_dest_addr(there)) == 1 or
              abort "a stranger came"
            exchange(outgoing, incoming)
          end
        end
      end
    end
  end
end

def exchange(outgoing, incoming)
  number = 0
  data = Array.new(1 << 20) { (number = (number * 1_664_525 + 1_013_904_223) & 0xffffffff) >> 24 }.pack("C*")
  # One descriptor becomes Ruby's, the other one stays the library's.
  taken = out
  call(:i2psock_stream_take_fd, outgoing, taken)
  client = IO.for_fd(taken[0, Fiddle::SIZEOF_INT].unpack1("i"), "r+b")
  back = echo(client, borrow(I2P.i2psock_stream_fd(incoming)), data)
  client.close
  Digest::SHA256.digest(back) == Digest::SHA256.digest(data) or abort "something else came back"
  puts "stream: #{back.bytesize} bytes, SHA-256 #{Digest::SHA256.hexdigest(back)}"
end

def bind(controller)
  open_dest(controller, nil, I2P::DGRAM) do |dest|
    with(get(:i2psock_dest_bind, dest), :i2psock_dgram_free) do |dgram|
      call(:i2psock_dgram_set_nonblocking, dgram, 1)
      yield dgram
    end
  end
end

# Sends a datagram, again if need be, until it has come to the other side.
def deliver(from, to, text)
  io = borrow(I2P.i2psock_dgram_fd(to))
  buffer = Fiddle::Pointer.malloc(I2P::COLLECT_SIZE, Fiddle::RUBY_FREE)
  count = out
  address = I2P.i2psock_addr_base64(I2P.i2psock_dgram_dest(to))
  with(I2P.i2psock_from_new, :i2psock_from_free) do |about|
    30.times do
      call(:i2psock_dgram_send_to, from, address, text, text.bytesize, 0, nil)
      while IO.select([io], nil, nil, 2)
        next unless call(:i2psock_dgram_recv_from, to, buffer, I2P::COLLECT_SIZE, 0, count, about)
        next unless buffer[0, count[0, Fiddle::SIZEOF_SIZE_T].unpack1("J")] == text

        I2P.i2psock_addr_equal(I2P.i2psock_from_addr(about), I2P.i2psock_dgram_dest(from)) == 1 or
          abort "somebody else sent it"
        return puts "datagram: #{text}"
      end
    end
  end
  abort "no datagram came"
end

$stdout.sync = true
abort "usage: #{$PROGRAM_NAME} FOLDER [SAM UDP]" unless [1, 3].include?(ARGV.size)
begin
  with(I2P.i2psock_options_new, :i2psock_options_free) do |options|
    call(:i2psock_options_from_env, options)
    %w[key_store sam udp].zip(ARGV) { |key, value| call(:i2psock_options_set, options, key, value) if value }
    with(get(:i2psock_controller_open, options), :i2psock_controller_close) do |controller|
      failure(controller)
      streams(controller)
      bind(controller) do |ours|
        bind(controller) do |theirs|
          deliver(theirs, ours, "ping")
          deliver(ours, theirs, "pong")
        end
      end
    end
  end
rescue I2P::Error => e
  abort "echo: #{e.operation}: #{e.message}"
end
