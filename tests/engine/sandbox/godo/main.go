// godo walks the life of a GPU Droplet with DigitalOcean's own Go client and prints one JSON line per step.
// Usage: godo <sandbox URL>. It exits with 1 and the reason when a step does not do what the client expects.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/digitalocean/godo"
	"golang.org/x/oauth2"
)

const poll = 20 * time.Millisecond

func main() {
	if len(os.Args) != 2 {
		fail("usage: godo URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tokens := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "godo-token"})
	client, err := godo.New(oauth2.NewClient(ctx, tokens), godo.SetBaseURL(os.Args[1]+"/"))
	must(err)

	account, _, err := client.Account.Get(ctx)
	must(err)
	show("account", account.Status)

	key, _, err := client.Keys.Create(ctx, &godo.KeyCreateRequest{
		Name:      "lab",
		PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b",
	})
	must(err)
	show("key", key.Fingerprint)

	created, response, err := client.Droplets.Create(ctx, &godo.DropletCreateRequest{
		Name: "web", Region: "nyc2", Size: "gpu-h100x1-80gb", Tags: []string{"lab"},
		Image:   godo.DropletCreateImage{Slug: "gpu-h100x1-base"},
		SSHKeys: []godo.DropletCreateSSHKey{{ID: key.ID}},
	})
	must(err)
	show("created", created.Status, response.StatusCode == http.StatusAccepted, response.Rate.Limit > 0)

	droplet := created
	for droplet.Status != "active" {
		time.Sleep(poll)
		droplet, _, err = client.Droplets.Get(ctx, created.ID)
		must(err)
	}
	address, err := droplet.PublicIPv4()
	must(err)
	show("active", address != "", droplet.SizeSlug, droplet.Region.Slug)

	byTag, _, err := client.Droplets.ListByTag(ctx, "lab", &godo.ListOptions{PerPage: 1})
	must(err)
	plain, _, err := client.Droplets.List(ctx, nil)
	must(err)
	gpus, _, err := client.Droplets.ListWithGPUs(ctx, nil)
	must(err)
	show("listed", len(byTag), len(plain), len(gpus))

	firewall, _, err := client.Firewalls.Create(ctx, &godo.FirewallRequest{
		Name: "fw", Tags: []string{"lab"},
		InboundRules: []godo.InboundRule{{
			Protocol: "tcp", PortRange: "8443", Sources: &godo.Sources{Addresses: []string{"0.0.0.0/0"}},
		}},
		OutboundRules: []godo.OutboundRule{{
			Protocol: "tcp", PortRange: "all", Destinations: &godo.Destinations{Addresses: []string{"0.0.0.0/0"}},
		}},
	})
	must(err)
	show("firewall", firewall.Status)

	action, _, err := client.DropletActions.PowerOff(ctx, droplet.ID)
	must(err)
	for action.Status == godo.ActionInProgress {
		time.Sleep(poll)
		action, _, err = client.Actions.Get(ctx, action.ID)
		must(err)
	}
	show("power_off", action.Status)

	_, err = client.Firewalls.Delete(ctx, firewall.ID)
	must(err)
	_, err = client.Droplets.Delete(ctx, droplet.ID)
	must(err)
	_, response, err = client.Droplets.Get(ctx, droplet.ID)
	show("deleted", err != nil, response.StatusCode)
}

func show(step string, facts ...any) {
	line, err := json.Marshal(append([]any{step}, facts...))
	must(err)
	fmt.Println(string(line))
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
