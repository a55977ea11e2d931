# One machine with everything the module can put beside the server.
{ module }:
{ ... }:
{
  name = "project-yum";

  nodes.machine =
    { lib, pkgs, ... }:
    {
      imports = [ module ];
      services.project-yum = {
        enable = true;
        credentials.jwt_secret = "/etc/chat-jwt";
        database.createLocally = true;
        redis.createLocally = true;
        prometheus.scrape = true;
        prometheus.rules = true;
        openFirewall = true;
        settings.listen.address = "0.0.0.0";
      };
      services.prometheus = {
        enable = true;
        globalConfig.scrape_interval = "1s";
      };
      # A test's secret may be seen by everybody; a real one never comes from the store.
      environment.etc."chat-jwt".text = "0123456789abcdef0123456789abcdef";
      environment.systemPackages = [
        (pkgs.callPackage ./client.nix { })
        pkgs.curl
        pkgs.jq
      ];
      virtualisation.memorySize = 2048;
      virtualisation.cores = 2;
      system.stateVersion = lib.mkDefault "26.05";
    };

  testScript =
    { nodes, ... }:
    let
      program = "${nodes.machine.services.project-yum.package}/bin/project-yum";
    in
    ''
      machine.wait_for_unit("project-yum.service")
      machine.wait_for_open_port(4000)


      def show(name):
          return machine.succeed(f"systemctl show -P {name} project-yum.service").strip()


      with subtest("limits are what io_uring needs"):
          assert show("LimitMEMLOCK") == "infinity", show("LimitMEMLOCK")
          assert int(show("LimitNOFILE")) >= 65536, show("LimitNOFILE")

      with subtest("it runs as nobody in particular"):
          pid = show("MainPID")
          uid = machine.succeed(f"stat -c %u /proc/{pid}").strip()
          assert uid != "0", uid

      with subtest("little is exposed"):
          machine.succeed("systemd-analyze security --threshold=20 project-yum.service")

      token = machine.succeed("JWT_SECRET_FILE=/etc/chat-jwt ${program} token --sub alice").strip()

      with subtest("a message makes its round"):
          machine.succeed(f"chat http://127.0.0.1:4000 {token} lobby say hello")
          machine.succeed("curl -sf http://127.0.0.1:4000/health/ready")

      history = f"curl -sf -H 'Authorization: Bearer {token}' 'http://127.0.0.1:4000/api/messages?roomId=lobby'"

      with subtest("a restart keeps history"):
          machine.succeed("systemctl restart project-yum.service")
          machine.wait_for_open_port(4000)
          page = machine.succeed(history + " | jq -r '.messages[0].content'").strip()
          assert page == "hello", page

      with subtest("a reload keeps the process"):
          before = show("MainPID")
          machine.succeed("systemctl reload project-yum.service")
          assert show("MainPID") == before

      with subtest("Prometheus scrapes it and knows the rules"):
          machine.wait_for_unit("prometheus.service")
          machine.wait_for_open_port(9090)
          up = "curl -sf 'http://127.0.0.1:9090/api/v1/query?query=yum_store_up' | jq -e '.data.result[0].value[1] == \"1\"'"
          machine.wait_until_succeeds(up)
          machine.succeed("curl -sf http://127.0.0.1:9090/api/v1/rules | jq -e '.data.groups | length > 0'")

      with subtest("only the public port is open"):
          rules = machine.succeed("iptables -S nixos-fw")
          assert "--dport 4000" in rules, rules
          assert "--dport 9464" not in rules, rules

      with subtest("it is killed by its watchdog when it stands still"):
          old = show("MainPID")
          machine.succeed(f"kill -STOP {old}")
          machine.wait_until_succeeds(f"test $(systemctl show -P MainPID project-yum.service) != {old}", timeout=120)
          machine.wait_for_open_port(4000)
    '';
}
