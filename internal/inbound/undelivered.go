package inbound

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	"google.golang.org/grpc/channelz/service"
)

const (
	// An answer is undelivered from the end of its handler until grpc has written it.
	// undeliveredPerClient bounds those of one client share, maxUndelivered those of all clients,
	// because each keeps the request's metadata and up to 64 KiB that the client may still send.
	// Clients that read have only a few.
	undeliveredPerClient = 512
	maxUndelivered       = 2048
	// slowFactor multiplies the bound for clients that do read, however slowly, because a dashboard
	// over a slow link is not an attack.
	slowFactor = 4
	// patience is the time after its last delivered answer for which a client counts as reading.
	patience = 2 * time.Second
	// lookEvery is the interval at which grpc is polled for its streams, lookAgain the minimum time
	// between two polls.
	lookEvery = time.Second
	lookAgain = 50 * time.Millisecond
	// answerWithin is the time-out for channelz. It answers at once, except for connections that
	// are blocked in a write: there it waits for a second.
	answerWithin = 100 * time.Millisecond
	// maxSockets bounds the connections that are polled, above the usual bound of connections.
	maxSockets = 4096
	// streamQuota is the part of an answer that grpc buffers before its client has read any of it.
	streamQuota = 64 << 10
)

// streams counts the streams that grpc has on each connection, by the address of the client. A
// stream exists until its last frame is written. A client can prevent that for ever by not opening
// its window, and only channelz shows it.
type streams struct{ channelz channelzpb.ChannelzServer }

func newStreams() *streams {
	s := &streams{}
	service.RegisterChannelzServiceToServer(registrar{s})
	return s
}

// registrar keeps the service for calls in the process instead of serving it.
type registrar struct{ streams *streams }

func (r registrar) RegisterService(_ *grpc.ServiceDesc, impl any) {
	r.streams.channelz = impl.(channelzpb.ChannelzServer)
}

// active returns the number of streams on each connection of the process's servers. It omits
// connections that are blocked in a write, because they answer late.
func (s *streams) active() map[string]int {
	ctx := context.Background()
	answers := make(chan socket, maxSockets)
	asked := 0
	for server, end := int64(0), false; !end; {
		resp, err := s.channelz.GetServers(ctx,
			&channelzpb.GetServersRequest{StartServerId: server})
		if err != nil {
			break
		}
		for _, o := range resp.GetServer() {
			id := o.GetRef().GetServerId()
			asked += s.ask(ctx, id, maxSockets-asked, answers)
			server = id + 1
		}
		end = resp.GetEnd() || len(resp.GetServer()) == 0
	}
	out := map[string]int{}
	late := time.NewTimer(answerWithin)
	defer late.Stop()
	for range asked {
		select {
		case o := <-answers:
			out[o.client] += o.streams
		case <-late.C:
			return out
		}
	}
	return out
}

// socket is the state of a connection in channelz.
type socket struct {
	client  string // "" if the connection was closed meanwhile
	streams int
}

// ask polls the connections of a server concurrently. It returns the number of answers to expect,
// at most the given maximum.
func (s *streams) ask(
	ctx context.Context, server int64, most int, answers chan<- socket,
) (asked int) {
	for id, end := int64(0), false; !end; {
		resp, err := s.channelz.GetServerSockets(ctx,
			&channelzpb.GetServerSocketsRequest{ServerId: server, StartSocketId: id})
		if err != nil {
			return asked
		}
		for _, ref := range resp.GetSocketRef() {
			if asked == most {
				return asked
			}
			id = ref.GetSocketId() + 1
			asked++
			go func() { answers <- s.socket(ctx, ref.GetSocketId()) }()
		}
		end = resp.GetEnd() || len(resp.GetSocketRef()) == 0
	}
	return asked
}

func (s *streams) socket(ctx context.Context, id int64) socket {
	got, err := s.channelz.GetSocket(ctx, &channelzpb.GetSocketRequest{SocketId: id})
	if err != nil {
		return socket{}
	}
	d := got.GetSocket().GetData()
	return socket{
		client:  got.GetSocket().GetRemote().GetUdsAddress().GetFilename(), // see Addr.Network
		streams: int(d.GetStreamsStarted() - d.GetStreamsSucceeded() - d.GetStreamsFailed()),
	}
}

// Ended records that the handler of a request has returned. bytes is the part of its answer that
// grpc may not have written yet; Tail computes it for a stream.
func (r *Requests) Ended(ctx context.Context, bytes int64) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return
	}
	held := a.conn
	r.mu.Lock()
	defer r.mu.Unlock()
	if held.gone {
		return
	}
	r.end(a)
	if bytes == 0 {
		return
	}
	held.tails = append(held.tails, bytes)
	held.unsent += bytes
	r.unsent += bytes
	if r.unsent > r.opts.Unsent && !r.looking && time.Since(r.looked) > lookAgain {
		r.looking = true
		go r.look() // not here, because it takes long if a connection is blocked
	}
}

// Tail returns how many bytes of a stream's answer may not have been written when its handler
// returns. all is the size of the answer, last that of the last message.
func Tail(all, last int64) int64 { return min(all, streamQuota+last) }

// seen is the state of a connection before grpc was polled. The result of the poll does not apply
// to later requests and answers.
type seen struct{ open, tails, ended int }

// look compares open requests with the streams of grpc, and closes connections of clients with too
// many undelivered answers. The caller must have set looking.
func (r *Requests) look() {
	before := map[*connRequests]seen{}
	r.mu.Lock()
	for _, client := range r.clients {
		for _, held := range client.conns {
			before[held] = seen{held.open, len(held.tails), held.ended}
		}
	}
	r.mu.Unlock()
	active := r.streams.active()

	var crowds, unread []*Conn
	var surplus []*unsent
	r.mu.Lock()
	r.looked, r.looking = time.Now(), false
	total := 0
	for _, client := range r.clients {
		n := 0
		for conn, held := range client.conns {
			was, ok := before[held]
			streams, known := active[conn.addr.String()]
			if !ok || !known {
				continue // it is new, or blocked in a write that will time out
			}
			last := held.undelivered
			held.undelivered = max(0, streams-max(was.open, held.open))
			held.standing = min(last, held.undelivered)
			delivered := last + was.ended - held.endedThen - held.undelivered
			if held.endedThen = was.ended; delivered > 0 || last == 0 {
				held.readAt = r.looked
			}
			held.reads = r.looked.Sub(held.readAt) < patience
			n += held.standing
			r.forgetDelivered(held, was.tails)
			surplus = append(surplus, held.surplus(streams)...)
		}
		for n > undeliveredPerClient*client.shares {
			worst := client.most(func(o *connRequests) int64 { return int64(o.standing) })
			n -= worst.standing
			crowds = append(crowds, r.lose(worst))
		}
		total += n
	}
	for total > maxUndelivered {
		worst := r.most(func(o *connRequests) int64 { return int64(o.standing) })
		total -= worst.standing
		crowds = append(crowds, r.lose(worst))
	}
	unread = r.tooMuchUnread()
	r.mu.Unlock()
	for _, u := range surplus {
		u.release()
	}
	hangUpAll(crowds, answersUnread, true)
	hangUpAll(unread, answersUnread, false)
}

// tooMuchUnread returns the connections to close because of the bytes of their undelivered answers.
// Above Unsent bytes it selects connections that do not read, above slowFactor times as many all
// connections. It only counts answers from before the poll, because it is not known whether later
// ones were delivered. Call it with mu held.
func (r *Requests) tooMuchUnread() (losers []*Conn) {
	var total int64
	for _, client := range r.clients {
		for _, held := range client.conns {
			total += held.unread
		}
	}
	unread := func(o *connRequests) int64 { return o.unread }
	deaf := func(o *connRequests) int64 {
		if o.reads {
			return 0
		}
		return o.unread
	}
	for _, bound := range []struct {
		bytes int64
		of    func(*connRequests) int64
	}{{r.opts.Unsent, deaf}, {slowFactor * r.opts.Unsent, unread}} {
		for total > bound.bytes {
			worst := r.most(bound.of)
			if worst == nil || bound.of(worst) == 0 || total-worst.largest <= bound.bytes {
				break // a single answer may have any size
			}
			total -= worst.unread
			losers = append(losers, r.lose(worst))
		}
	}
	return losers
}

// forgetDelivered removes the delivered ones of the first n answers of a connection. Which they are
// is not known, therefore it keeps the largest. It also keeps all later answers.
func (r *Requests) forgetDelivered(held *connRequests, n int) {
	old, later := held.tails[:n], held.tails[n:]
	slices.SortFunc(old, func(a, b int64) int { return cmp.Compare(b, a) })
	old = old[:min(n, held.undelivered)]
	held.unread, held.largest = 0, 0
	for _, n := range old {
		held.unread += n
		held.largest = max(held.largest, n)
	}
	held.tails = slices.Concat(old, later)
	var sum int64
	for _, n := range held.tails {
		sum += n
	}
	r.unsent += sum - held.unsent
	held.unsent = sum
}

// surplus removes registered answers of a connection that has fewer streams, because grpc drops an
// answer silently if its stream is reset while it is written. It removes an answer only at the
// second look, because a stream that has just ended is not counted in streams.
func (c *connRequests) surplus(streams int) (out []*unsent) {
	for u := range c.answers {
		if u.looks++; u.looks > 1 && len(c.answers) > streams {
			delete(c.answers, u)
			out = append(out, u)
		}
	}
	return out
}

// watch calls look at intervals while there are connections with requests.
func (r *Requests) watch() {
	r.mu.Lock()
	running := r.looking
	r.looking = true
	r.mu.Unlock()
	if !running {
		r.look()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for client := range maps.Values(r.clients) {
		if len(client.conns) > 0 {
			r.timer.Reset(lookEvery)
			return
		}
	}
	r.timer = nil
}

// hangUpAll closes the connections of one event. It blames each client at most once.
func hangUpAll(conns []*Conn, reason string, blame bool) {
	blamed := map[Client]bool{}
	for _, c := range conns {
		client := Client{c.client, c.source.shares}
		c.hangUp(reason, blame && !blamed[client])
		blamed[client] = true
	}
}
