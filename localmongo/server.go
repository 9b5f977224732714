package localmongo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// Options configures a [Server]. The zero value keeps everything in memory
// and listens nowhere.
type Options struct {
	// Path names the file that keeps the data. Each write replaces the whole
	// file before it is acknowledged. Empty means memory.
	Path string
	// Listen makes the server accept connections on a free port of 127.0.0.1,
	// for other processes and tools; see [Server.URI]. There is no
	// authentication.
	Listen bool
	// Logger receives the one note that this is not for production. Nil means
	// [slog.Default].
	Logger *slog.Logger
}

// Server is a running localmongo. Its methods are safe for concurrent use.
type Server struct {
	data     *data
	client   *mongo.Client
	listener net.Listener
	logger   *slog.Logger

	nextConn atomic.Int32
	stop     chan struct{}
	running  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// Start starts a server and connects a client to it. The caller closes it.
func Start(ctx context.Context, opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	registerOperators()
	d, err := openData(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("localmongo: open %q: %w", opts.Path, err)
	}
	s := &Server{
		data:   d,
		logger: opts.Logger,
		stop:   make(chan struct{}),
		conns:  map[net.Conn]struct{}{},
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	s.running.Go(func() { d.expire(s.stop, s.logger) })
	if opts.Listen {
		if err := s.listen(ctx); err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
	}
	s.client, err = mongo.Connect(ctx, options.Client().
		ApplyURI("mongodb://localmongo/?directConnection=true").
		SetDialer(pipeDialer{s}).
		SetServerSelectionTimeout(2*time.Second))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("localmongo: connect: %w", err), s.Close(ctx))
	}
	s.logger.Warn("localmongo is running: for development and tests, not for production")
	return s, nil
}

func (s *Server) listen(ctx context.Context) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("localmongo: listen: %w", err)
	}
	s.listener = l
	s.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if !s.serve(conn) {
				_ = conn.Close()
			}
		}
	})
	return nil
}

// Client returns the client that is connected over a pipe. It is the same one
// each time and is disconnected by Close.
func (s *Server) Client() *mongo.Client { return s.client }

// URI returns the connection string of the loopback listener, or "" without
// [Options.Listen].
func (s *Server) URI() string {
	if s.listener == nil {
		return ""
	}
	return "mongodb://" + s.listener.Addr().String() + "/?directConnection=true"
}

// Close disconnects the client, ends every connection and waits for the
// goroutines to end, or for ctx. Closing twice is harmless.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	s.mu.Unlock()

	var err error
	if s.client != nil {
		err = s.client.Disconnect(ctx)
	}
	if s.listener != nil {
		err = errors.Join(err, s.listener.Close())
	}
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()

	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// pipeDialer makes the driver's connections inside the process.
type pipeDialer struct{ server *Server }

// DialContext implements the driver's dialer.
func (d pipeDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	if !d.server.serve(far) {
		return nil, errors.New("localmongo: the server is closed")
	}
	return near, nil
}

// serve runs conn until it ends, unless the server is closed.
func (s *Server) serve(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	c := &session{server: s, conn: conn, id: s.nextConn.Add(1)}
	s.running.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			_ = conn.Close()
		}()
		c.run()
	})
	return true
}
