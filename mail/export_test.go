package mail

import (
	"bytes"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// Poke is what a poll does, without the wait for it.
func (o *Outbox) Poke() { o.poke() }

var (
	DefaultBackoff = defaultBackoff
	PauseAfter     = pauseAfter
	EncodeSubject  = encodeSubject
)

// Wire returns what a server would be given as the message's data.
func Wire(m *Message, at time.Time) ([]byte, error) {
	p, err := m.parse()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = p.onWire(at).WriteTo(&out)
	return out.Bytes(), err
}

// LoginInTheClear is what credentials do on a connection without TLS.
func LoginInTheClear(host string) error {
	_, _, err := (&credentials{username: "u", password: "p", host: host}).Start(&smtp.ServerInfo{Name: host, Auth: []string{"PLAIN", "LOGIN"}})
	return err
}
