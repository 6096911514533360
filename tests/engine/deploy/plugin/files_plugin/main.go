// A provider plugin in Go, on the SDK the official providers are built with: files of one folder, a function, and a
// component of two files. The content "hang" makes a create or an update wait until it is cancelled or killed.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/provider"
	rpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const version = "1.2.3"

type files struct {
	rpc.UnimplementedResourceProviderServer
	engine    *grpc.ClientConn
	folder    string
	cancelled chan struct{}
	cancel    sync.Once
}

// main does what the SDK's own mains do: the engine's address is the argument, the port is the first line.
func main() {
	engine, err := grpc.NewClient(os.Args[len(os.Args)-1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		cmdutil.ExitError(err.Error())
	}
	served := &files{engine: engine, cancelled: make(chan struct{})}
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Init: func(server *grpc.Server) error {
			rpc.RegisterResourceProviderServer(server, served)
			return nil
		},
	})
	if err != nil {
		cmdutil.ExitError(err.Error())
	}
	fmt.Println(handle.Port)
	if err := <-handle.Done; err != nil {
		cmdutil.ExitError(err.Error())
	}
}

func (f *files) GetPluginInfo(context.Context, *emptypb.Empty) (*rpc.PluginInfo, error) {
	return &rpc.PluginInfo{Version: version}, nil
}

func (f *files) CheckConfig(_ context.Context, req *rpc.CheckRequest) (*rpc.CheckResponse, error) {
	news, err := properties(req.GetNews())
	if err != nil {
		return nil, err
	}
	if !news["folder"].IsString() && !news["folder"].IsComputed() {
		return &rpc.CheckResponse{Inputs: req.GetNews(), Failures: []*rpc.CheckFailure{
			{Property: "folder", Reason: "say in which folder the files are to be"},
		}}, nil
	}
	return &rpc.CheckResponse{Inputs: req.GetNews()}, nil
}

func (f *files) DiffConfig(_ context.Context, req *rpc.DiffRequest) (*rpc.DiffResponse, error) {
	olds, err := properties(req.GetOlds())
	if err != nil {
		return nil, err
	}
	news, err := properties(req.GetNews())
	if err != nil {
		return nil, err
	}
	if olds["folder"].DeepEquals(news["folder"]) {
		return &rpc.DiffResponse{Changes: rpc.DiffResponse_DIFF_NONE}, nil
	}
	return &rpc.DiffResponse{Changes: rpc.DiffResponse_DIFF_SOME, Replaces: []string{"folder"}}, nil
}

func (f *files) Configure(_ context.Context, req *rpc.ConfigureRequest) (*rpc.ConfigureResponse, error) {
	f.folder = req.GetVariables()["files:config:folder"]
	return &rpc.ConfigureResponse{AcceptSecrets: true, AcceptResources: true, AcceptOutputs: true, SupportsPreview: true}, nil
}

// Check names the file after the resource where the program does not.
func (f *files) Check(_ context.Context, req *rpc.CheckRequest) (*rpc.CheckResponse, error) {
	olds, err := properties(req.GetOlds())
	if err != nil {
		return nil, err
	}
	news, err := properties(req.GetNews())
	if err != nil {
		return nil, err
	}
	var failures []*rpc.CheckFailure
	if _, has := news["content"]; !has {
		failures = append(failures, &rpc.CheckFailure{Property: "content", Reason: "a file needs some"})
	}
	if _, has := news["name"]; !has {
		if old, has := olds["name"]; has {
			news["name"] = old
		} else {
			name, err := resource.NewUniqueName(req.GetRandomSeed(), resource.URN(req.GetUrn()).Name()+"-", 6, 0, nil)
			if err != nil {
				return nil, err
			}
			news["name"] = resource.NewProperty(name)
		}
	}
	inputs, err := message(news)
	return &rpc.CheckResponse{Inputs: inputs, Failures: failures}, err
}

func (f *files) Diff(_ context.Context, req *rpc.DiffRequest) (*rpc.DiffResponse, error) {
	olds, err := properties(req.GetOldInputs())
	if err != nil {
		return nil, err
	}
	news, err := properties(req.GetNews())
	if err != nil {
		return nil, err
	}
	answer := &rpc.DiffResponse{Changes: rpc.DiffResponse_DIFF_NONE, HasDetailedDiff: true,
		DetailedDiff: map[string]*rpc.PropertyDiff{}, Stables: []string{"name"}}
	for key, kind := range map[string]rpc.PropertyDiff_Kind{
		"name": rpc.PropertyDiff_UPDATE_REPLACE, "content": rpc.PropertyDiff_UPDATE,
	} {
		if olds[resource.PropertyKey(key)].DeepEquals(news[resource.PropertyKey(key)]) {
			continue
		}
		answer.Changes = rpc.DiffResponse_DIFF_SOME
		answer.Diffs = append(answer.Diffs, key)
		answer.DetailedDiff[key] = &rpc.PropertyDiff{Kind: kind, InputDiff: true}
		if key == "name" {
			answer.Replaces, answer.Stables = []string{"name"}, nil
		}
	}
	return answer, nil
}

func (f *files) Create(ctx context.Context, req *rpc.CreateRequest) (*rpc.CreateResponse, error) {
	inputs, err := properties(req.GetProperties())
	if err != nil {
		return nil, err
	}
	outputs, err := f.written(ctx, req.GetUrn(), inputs, req.GetPreview())
	if err != nil {
		return nil, err
	}
	state, err := message(outputs)
	id := ""
	if !req.GetPreview() {
		id = text(inputs["name"])
	}
	return &rpc.CreateResponse{Id: id, Properties: state}, err
}

func (f *files) Update(ctx context.Context, req *rpc.UpdateRequest) (*rpc.UpdateResponse, error) {
	inputs, err := properties(req.GetNews())
	if err != nil {
		return nil, err
	}
	outputs, err := f.written(ctx, req.GetUrn(), inputs, req.GetPreview())
	if err != nil {
		return nil, err
	}
	state, err := message(outputs)
	return &rpc.UpdateResponse{Properties: state}, err
}

func (f *files) Read(_ context.Context, req *rpc.ReadRequest) (*rpc.ReadResponse, error) {
	content, err := os.ReadFile(filepath.Join(f.folder, req.GetId()))
	if errors.Is(err, fs.ErrNotExist) {
		return &rpc.ReadResponse{}, nil
	} else if err != nil {
		return nil, err
	}
	inputs := resource.PropertyMap{
		"name":    resource.NewProperty(req.GetId()),
		"content": resource.NewProperty(string(content)),
	}
	known, err := message(inputs)
	if err != nil {
		return nil, err
	}
	state, err := message(f.described(inputs))
	return &rpc.ReadResponse{Id: req.GetId(), Inputs: known, Properties: state}, err
}

func (f *files) Delete(_ context.Context, req *rpc.DeleteRequest) (*emptypb.Empty, error) {
	err := os.Remove(filepath.Join(f.folder, req.GetId()))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return &emptypb.Empty{}, err
}

func (f *files) Invoke(_ context.Context, req *rpc.InvokeRequest) (*rpc.InvokeResponse, error) {
	args, err := properties(req.GetArgs())
	if err != nil {
		return nil, err
	}
	if req.GetTok() != "files:index:hash" {
		return nil, status.Errorf(codes.NotFound, "no function %s", req.GetTok())
	}
	answer, err := message(resource.PropertyMap{"sha256": resource.NewProperty(hash(text(args["content"])))})
	return &rpc.InvokeResponse{Return: answer}, err
}

// Pair is a component of two files.
type Pair struct {
	pulumi.ResourceState
	First  pulumi.StringOutput `pulumi:"first"`
	Second pulumi.StringOutput `pulumi:"second"`
}

type file struct {
	pulumi.CustomResourceState
	Sha256 pulumi.StringOutput `pulumi:"sha256"`
}

type pairArgs struct {
	Content pulumi.StringInput `pulumi:"content"`
}

func (f *files) Construct(ctx context.Context, req *rpc.ConstructRequest) (*rpc.ConstructResponse, error) {
	return provider.Construct(ctx, req, f.engine, construct)
}

func construct(
	ctx *pulumi.Context, kind, name string, inputs provider.ConstructInputs, options pulumi.ResourceOption,
) (*provider.ConstructResult, error) {
	args := &pairArgs{}
	if err := inputs.CopyTo(args); err != nil {
		return nil, err
	}
	pair := &Pair{}
	if err := ctx.RegisterComponentResource(kind, name, pair, options); err != nil {
		return nil, err
	}
	var made [2]file
	for i, side := range []string{"left", "right"} {
		props := pulumi.Map{"content": pulumi.Sprintf("%s %s of %s", args.Content, side, ctx.Stack())}
		err := ctx.RegisterResource("files:index:File", name+"-"+side, props, &made[i], pulumi.Parent(pair))
		if err != nil {
			return nil, err
		}
	}
	pair.First, pair.Second = made[0].Sha256, made[1].Sha256
	outputs := pulumi.Map{"first": pair.First, "second": pair.Second}
	if err := ctx.RegisterResourceOutputs(pair, outputs); err != nil {
		return nil, err
	}
	return provider.NewConstructResult(pair)
}

func (f *files) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	f.cancel.Do(func() { close(f.cancelled) })
	return &emptypb.Empty{}, os.WriteFile(filepath.Join(f.folder, "cancelled"), nil, 0o600)
}

// written writes the file and says what is there then.
func (f *files) written(ctx context.Context, urn string, inputs resource.PropertyMap, preview bool) (resource.PropertyMap, error) {
	if preview {
		outputs := inputs.Copy()
		outputs["sha256"] = resource.MakeComputed(resource.NewProperty(""))
		outputs["pid"] = resource.MakeComputed(resource.NewProperty(0.0))
		return outputs, nil
	}
	path, content := filepath.Join(f.folder, text(inputs["name"])), text(inputs["content"])
	if content == "hang" {
		if err := os.WriteFile(path+".started", []byte(fmt.Sprint(os.Getpid())), 0o600); err != nil {
			return nil, err
		}
		fmt.Fprintln(os.Stderr, "files: the disk does not answer")
		<-f.cancelled
		return nil, status.Error(codes.Aborted, "cancelled")
	}
	if len(content) > 1000 {
		_, err := rpc.NewEngineClient(f.engine).Log(ctx, &rpc.LogRequest{
			Severity: rpc.LogSeverity_WARNING, Message: "a long file", Urn: urn,
		})
		if err != nil {
			return nil, err
		}
	}
	return f.described(inputs), os.WriteFile(path, []byte(content), 0o600)
}

func (f *files) described(inputs resource.PropertyMap) resource.PropertyMap {
	outputs := inputs.Copy()
	outputs["sha256"] = resource.NewProperty(hash(text(inputs["content"])))
	if inputs["content"].IsSecret() {
		outputs["sha256"] = resource.MakeSecret(outputs["sha256"])
	}
	outputs["pid"] = resource.NewProperty(float64(os.Getpid()))
	return outputs
}

func hash(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func text(value resource.PropertyValue) string {
	for value.IsSecret() {
		value = value.SecretValue().Element
	}
	if value.IsOutput() {
		value = value.OutputValue().Element
	}
	if !value.IsString() {
		return ""
	}
	return value.StringValue()
}

func properties(given *structpb.Struct) (resource.PropertyMap, error) {
	return plugin.UnmarshalProperties(given, plugin.MarshalOptions{
		KeepUnknowns: true, KeepSecrets: true, KeepResources: true, SkipNulls: true,
	})
}

func message(values resource.PropertyMap) (*structpb.Struct, error) {
	return plugin.MarshalProperties(values, plugin.MarshalOptions{
		KeepUnknowns: true, KeepSecrets: true, KeepResources: true, SkipNulls: true,
	})
}
