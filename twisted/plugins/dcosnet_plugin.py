"""Makes `twistd dcosnet` known; imports nothing of ours."""

from twisted.application.service import ServiceMaker

dcosnet = ServiceMaker("dcosnet", "dcosnet.tap", "Names and virtual addresses for a fleet of hosts.", "dcosnet")
