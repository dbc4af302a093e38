# docker-api, the Ruby client that Chef's docker resources use: containers, exec, logs, archives, images, events.
# frozen_string_literal: true

require 'docker'
require 'rubygems/package' # what docker-api packs files with, and forgets to load

IMAGE = ENV.fetch('IMAGE')
NAME = ENV.fetch('NAME')
# Since Ruby 3.1.7 the host of unix:/// is "", which Debian's excon takes for one and refuses.
Docker.options = { host: nil }

def check(truth, what)
  raise "not so: #{what}" unless truth
end

check Docker.ping == 'OK', 'ping'
check Docker.version['ApiVersion'], 'version'
check Docker.info['OSType'] == 'linux', 'info'

container = Docker::Container.create(
  'Image' => IMAGE, 'name' => NAME, 'Cmd' => ['sh', '-c', 'echo out; echo err >&2; cat; sleep 100'],
  'OpenStdin' => true, 'Labels' => { 'scenario' => NAME }, 'HostConfig' => { 'Memory' => 64 << 20 }
)
begin
  container.start
  check container.json['State']['Running'], 'it runs'
  found = Docker::Container.all(filters: { label: ["scenario=#{NAME}"] }.to_json)
  check found.map(&:id) == [container.id], 'the list by label'
  out, err, code = container.exec(['sh', '-c', 'echo one; echo two >&2; exit 5'])
  check [out, err, code] == [["one\n"], ["two\n"], 5], "exec gave #{[out, err, code]}"
  out, = container.exec(['cat'], stdin: StringIO.new('fed'))
  check out.join == 'fed', "exec with input gave #{out}"
  check container.logs(stdout: true).include?('out'), 'logs'
  container.store_file('/tmp/note', content: 'hello', permissions: 0o640)
  check container.read_file('/tmp/note') == 'hello', 'a file that was stored'
  check container.top.any? { |process| process.values.any? { |text| text.include?('sleep') } }, 'top'
  check container.stats['memory_stats']['usage'].positive?, 'stats'
  container.pause
  check container.json['State']['Paused'], 'pause'
  container.unpause
  container.rename("#{NAME}-new")
  container.update('Memory' => 32 << 20, 'MemorySwap' => 64 << 20)
  container.restart('timeout' => 0)
  check container.refresh!.info['Name'] == "/#{NAME}-new", 'the new name'
  container.kill
  check container.wait['StatusCode'] == 137, 'wait'
  image = container.commit('repo' => NAME, 'tag' => 'saved')
  check Docker::Image.exist?("#{NAME}:saved"), 'the image'
  image.tag('repo' => NAME, 'tag' => 'other')
  image.remove('force' => true)
ensure
  container.delete(force: true, v: true)
end
begin
  Docker::Container.get(NAME)
  raise 'it is still there'
rescue Docker::Error::NotFoundError
  nil
end
volume = Docker::Volume.create("#{NAME}-v")
check Docker::Volume.all.map(&:id).include?("#{NAME}-v"), 'the volume'
volume.remove
