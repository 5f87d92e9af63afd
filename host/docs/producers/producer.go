// Appends one message to a stream of Segmenter, with nothing but a socket. See host/docs/producers.md.
//
//	SEGMENTER_REDIS=redis://… go run producer.go NAMESPACE/STREAM KEY [NAME=VALUE]...   with the payload on stdin
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
)

func diffuse(x uint64) uint64 {
	x *= 0x6eed0e9da4d94a4f
	return (x ^ x>>32>>(x>>60)) * 0x6eed0e9da4d94a4f
}

func seahash(key string) uint64 {
	a, b, c, d := uint64(0x16f11fe89b0d677c), uint64(0xb480a793d8e6c86c), uint64(0x6fe2e5aaf078ebc9), uint64(0x14f994a4c5259381)
	for rest := append([]byte(key), make([]byte, -len(key)&7)...); len(rest) > 0; rest = rest[8:] {
		a, b, c, d = b, c, d, diffuse(a^binary.LittleEndian.Uint64(rest))
	}
	return diffuse(a ^ b ^ c ^ d ^ uint64(len(key)))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// One text or number; what is not there is empty.
func ask(redis *textproto.Conn, words ...string) string {
	request := fmt.Sprintf("*%d", len(words))
	for _, word := range words {
		request += fmt.Sprintf("\r\n$%d\r\n%s", len(word), word)
	}
	must(0, redis.PrintfLine("%s", request))
	line := must(redis.ReadLine())
	if line == "*1" {
		line = must(redis.ReadLine())
	}
	length, _ := strconv.Atoi(line[1:])
	if line[0] == '-' {
		log.Fatal("Redis says: ", line[1:])
	} else if line[0] != '$' || length < 0 {
		return strings.TrimPrefix(line[1:], "-1")
	}
	bytes := make([]byte, length+2)
	must(io.ReadFull(redis.R, bytes))
	return string(bytes[:length])
}

func main() {
	stream, key, payload := os.Args[1], os.Args[2], string(must(io.ReadAll(os.Stdin)))
	server := must(url.Parse(os.Getenv("SEGMENTER_REDIS")))
	redis := must(textproto.Dial("tcp", server.Host))
	if password, given := server.User.Password(); given {
		ask(redis, "AUTH", server.User.Username(), password)
	}
	of := func(field string) string { return ask(redis, "HMGET", "seg:{"+stream+"}:stream", field) }
	uid, most := of("uid"), must(strconv.Atoi(of("payload_max")+"0"))/10
	if of("protocol") != "1" || of("deleting") != "" || of("source") != "" {
		log.Fatal(stream, " takes nothing: it is not there, being deleted, written by others, or newer")
	}
	if most == 0 {
		most = 1_048_576
	}
	if len(payload) > most {
		log.Fatal("the payload has more than ", most, " bytes")
	}
	place := fmt.Sprintf("seg:{%s/%d}", stream, seahash(key)%must(strconv.ParseUint(of("partitions"), 10, 64)))
	capacity, length := ask(redis, "HMGET", place+":meta", "capacity"), ask(redis, "XLEN", place+":log")
	if ask(redis, "HMGET", place+":meta", "uid") != uid || must(strconv.Atoi(length)) >= must(strconv.Atoi(capacity)) {
		log.Fatal(place, " is full, or was made anew: try again later")
	}
	entry := []string{"XADD", place + ":log", "NOMKSTREAM", "*", "k", key, "p", payload}
	for _, pair := range os.Args[3:] {
		name, value, _ := strings.Cut(pair, "=")
		entry = append(entry, "@"+name, value)
	}
	id := ask(redis, entry...)
	if id == "" {
		log.Fatal(place, " is gone")
	}
	fmt.Println(id)
}
